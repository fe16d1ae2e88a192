/* openapi: the contract as it is in the repository, served at /openapi.yaml. */
    .section .rodata
    .global cheetah_openapi
cheetah_openapi:
    .incbin CHEETAH_OPENAPI
cheetah_openapi_end:
    .byte 0
    .balign 8
    .global cheetah_openapi_size
cheetah_openapi_size:
    .quad cheetah_openapi_end - cheetah_openapi
    .section .note.GNU-stack, "", %progbits
