/* openapi: the contract as it is in the repository, served at /openapi.yaml. */
    .section .rodata
    .global http_openapi
http_openapi:
    .incbin CHEETAH_OPENAPI
http_openapi_end:
    .byte 0
    .balign 8
    .global http_openapi_size
http_openapi_size:
    .quad http_openapi_end - http_openapi
    .section .note.GNU-stack, "", %progbits
