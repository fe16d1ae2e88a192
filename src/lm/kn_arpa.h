/* kn_arpa: a live model, or a fixed one, as a text in ARPA format, which KenLM, SRILM and others read.
 *
 *   \data\ | ngram m=COUNT ... | \m-grams: | log10 p TAB words TAB log10 back-off ... | \end\
 *
 * Words are tokens in decimal, or those of the vocabulary; bos is <s>, eos </s>, and <unk> the unknown word: these three first, then 1-grams ascending, longer ones in the
 * order of their contexts' names. Numbers are floats in as few digits as tell them apart, so a text that was read in as a fixed model is
 * written the same, byte for byte. The head has all counts, so the text is written while the model is read: for each n-gram one look-up for
 * its back-off weight, for each context its chain. Nothing is counted meanwhile (the counting gate), so it is the model of one moment.
 */
#pragma once

#include "lm/kn_read.h"

/* Takes over n bytes of text; false: no more is wanted. */
typedef bool lm_kn_arpa_sink(void *ctx, const char *p, size_t n);

/* Writes the text, with the words of the vocabulary if `words`. CHT_NO_WORD: a token has none, or one that means something else in
 * this format (<s>, </s>, <unk>, <UNK>), or has a NUL; all tokens are among the 1-grams, so this is found there. CHT_CANCELLED: the sink said so; CHT_PAIR_NOT_FOUND: no model; CHT_NOTHING_COUNTED; CHT_MALFORMED_PAYLOAD and what
 * else a read returns. What was written before an error has no \end\, so nobody takes it for a model. */
enum cht_rc lm_kn_arpa_write(struct lm_engine *e, struct cht_store *s, bool words, const _Atomic bool *cancel,
                             lm_kn_arpa_sink *sink, void *ctx, struct cht_err *err);
