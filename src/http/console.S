/* console: the files of console/dist as they are in the repository, and the two large ones as gzip made them (CMakeLists.txt), for
 * /console/. */
    .macro embed name, path
    .global http_console_\name
http_console_\name:
    .incbin "\path"
http_console_\name\()_end:
    .byte 0
    .balign 8
    .global http_console_\name\()_size
http_console_\name\()_size:
    .quad http_console_\name\()_end - http_console_\name
    .endm

    .section .rodata
    embed page, dist/index.html
    embed icon, dist/icon.svg
    embed script, dist/console.js
    embed style, dist/console.css
    embed script_gz, console/console.js.gz
    embed style_gz, console/console.css.gz
    .section .note.GNU-stack, "", %progbits
