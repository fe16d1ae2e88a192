/* code: what the numbers mean with which a library answers that passes on those of the system, negative. */
#pragma once

#include <stddef.h>

enum cht_os_code {
    CHT_OS_OK, /* 0 or more */
    CHT_OS_CANCELED,
    CHT_OS_TIMED_OUT,
    CHT_OS_NOT_THERE,
    CHT_OS_THERE,
    CHT_OS_BUSY,
    CHT_OS_NO_SPACE,
    CHT_OS_NO_MEMORY,
    CHT_OS_TOO_LARGE,
    CHT_OS_SHUT_OUT,    /* the peer takes nothing from this process any more */
    CHT_OS_UNSUPPORTED, /* the peer cannot do that, or lets nobody do it */
    CHT_OS_OTHER
};
enum cht_os_code cht_os_code(int result);
/* For people. */
void cht_os_code_text(int result, char *out, size_t n);
