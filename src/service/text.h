/* text: bytes as JSON strings: what is text and what is not, and how it is written. Text is UTF-8 (RFC 3629) without control characters
 * (Unicode's Cc) other than tab and line feed.
 *
 * Threads: any; no state.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How many of the n bytes at p are text: whole characters, up to the first that is none. */
size_t svc_text_prefix(const uint8_t *p, size_t n);
/* Are all of them? Then *json is how long they are as a JSON string, without the quotes. */
bool svc_text_is(const uint8_t *p, size_t n, size_t *json);
/* Writes text as that; `to` has the room. Returns its length, at most twice n. */
size_t svc_text_json(char *to, const uint8_t *p, size_t n);

/* For strings that may be anything (svc_out_string). */

/* How many bytes from p on need no escape and are ASCII. */
size_t svc_text_plain(const uint8_t *p, size_t n);
/* The length of the character at p of n > 0 bytes, 0 if there is none. */
size_t svc_text_character(const uint8_t *p, size_t n);
/* One character as JSON, whatever it is; `to` has room for 6. Returns how long that is. */
size_t svc_text_escape(char *to, const uint8_t *p, size_t len);
