/* terminal: what the tools need of a terminal. Descriptors are 0, 1 and 2 or ones the caller has opened; errno stops here.
 */
#pragma once

#include <stdbool.h>

bool cht_os_is_terminal(int fd);
/* Rows and columns; 24 and 80 if the terminal does not say. */
void cht_os_terminal_size(int fd, unsigned *rows, unsigned *columns);
/* Keys arrive at once and are not echoed; signals from the keyboard stay. False if fd is no terminal. One terminal at a
 * time; `restore` puts back what was there, also when nothing was changed. */
bool cht_os_terminal_raw(int fd);
void cht_os_terminal_restore(void);
/* One byte from fd within ms, -1 if none came, -2 at the end of the input. */
int cht_os_read_key(int fd, int ms);
