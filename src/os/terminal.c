/* terminal: see terminal.h. */
#include "os/terminal.h"

#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct termios saved;
static int saved_fd = -1;

bool cht_os_is_terminal(int fd) { return isatty(fd) == 1; }

void cht_os_terminal_size(int fd, unsigned *rows, unsigned *columns)
{
    struct winsize w = {0};
    bool known = ioctl(fd, TIOCGWINSZ, &w) == 0;
    *rows = known && w.ws_row > 0 ? w.ws_row : 24;
    *columns = known && w.ws_col > 0 ? w.ws_col : 80;
}

bool cht_os_terminal_raw(int fd)
{
    if (saved_fd >= 0 || !cht_os_is_terminal(fd) || tcgetattr(fd, &saved) != 0)
        return false;
    struct termios raw = saved;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    if (tcsetattr(fd, TCSANOW, &raw) != 0)
        return false;
    saved_fd = fd;
    return true;
}

void cht_os_terminal_restore(void)
{
    if (saved_fd >= 0)
        (void)tcsetattr(saved_fd, TCSANOW, &saved); /* nothing can be done about a terminal that went away */
    saved_fd = -1;
}

int cht_os_read_key(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    unsigned char c;
    int n = poll(&p, 1, ms);
    if (n == 0 || (n < 0 && errno == EINTR))
        return -1;
    ssize_t got = n > 0 ? read(fd, &c, 1) : -1;
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return -1;
    return got == 1 ? c : -2;
}
