/* crc32c: CRC-32C (Castagnoli, RFC 3720 B.4; reflected polynomial 0x82F63B78), hardware if the processor has it
 * (three interleaved streams for long inputs), a table elsewhere. cht_crc32c("123456789") is 0xE3069283. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* crc: 0 to start, or the result for the bytes before these. */
uint32_t cht_crc32c(uint32_t crc, const void *p, size_t n);
/* Of the 8 bytes of key, little-endian, and the n bytes after them, in one call: for the many short ones. */
uint32_t cht_crc32c_keyed(uint64_t key, const void *p, size_t n);
/* The portable way alone, for the test that compares the two. */
uint32_t cht_crc32c_table(uint32_t crc, const void *p, size_t n);
/* Does this machine have the instruction, and is it used? For tests. */
bool cht_crc32c_by_instruction(void);
