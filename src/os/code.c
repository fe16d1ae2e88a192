/* code: see code.h. */
#include "os/code.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum cht_os_code cht_os_code(int result)
{
    switch (result < 0 ? -result : 0) {
    case 0:
        return CHT_OS_OK;
    case ECANCELED:
        return CHT_OS_CANCELED;
    case ETIMEDOUT:
        return CHT_OS_TIMED_OUT;
    case ENOENT:
        return CHT_OS_NOT_THERE;
    case EBUSY:
        return CHT_OS_BUSY;
    case EEXIST:
        return CHT_OS_THERE;
    case ENOSPC:
    case EDQUOT:
        return CHT_OS_NO_SPACE;
    case ENOMEM:
        return CHT_OS_NO_MEMORY;
    case EMSGSIZE:
    case EFBIG:
        return CHT_OS_TOO_LARGE;
    case ESHUTDOWN:
        return CHT_OS_SHUT_OUT;
    case EOPNOTSUPP:
    case EPERM:
        return CHT_OS_UNSUPPORTED;
    default:
        return CHT_OS_OTHER;
    }
}

void cht_os_code_text(int result, char *out, size_t n)
{
    char text[128];
    (void)snprintf(out, n, "%s", strerror_r(result < 0 ? -result : result, text, sizeof text));
}
