/* fault: see fault.h.
 *
 * The handler looks for the address in a table of mappings: chunks of entries that are never freed, each entry with a sequence
 * number that is odd while it changes. A thread that faults keeps its own mapping from being changed meanwhile (it holds the
 * lock that guards it), so an entry that changes under the handler's eyes is another one's and is passed over.
 *
 * In the handler: atomics, mmap and munmap as bare system calls (a sanitizer's own versions are not for handlers), sigaction,
 * raise. Two threads at the same page do the same twice; the second page of zeros takes the place of the first, which nobody
 * has written to: who writes is alone in the mapping.
 *
 * Limitations  with kernel pages of more than 4 KiB a fault loses all of ours in it.
 */
#include "os/fault.h"

#include "base/alloc.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHUNK 1024u  /* entries */
#define CHUNKS 1024u /* more than the kernel lets a process have mappings */

struct entry {
    _Atomic uint32_t seq; /* odd: being changed */
    uint32_t next_free;   /* guarded by mu */
    _Atomic uintptr_t base;
    _Atomic size_t len;
    _Atomic(struct cht_fault *) f; /* NULL: free or hidden */
};

static _Atomic(struct entry *) chunks[CHUNKS];
static _Atomic uint32_t used_chunks;
static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static uint32_t free_head, used = 1; /* guarded by mu; entry 0 stays unused */
static struct sigaction before;
static size_t kernel_page = CHT_FAULT_PAGE;

/* ---- in the handler ------------------------------------------------------------------------------------------- */

static bool map_zeros(uint8_t *at, size_t n)
{
    return syscall(SYS_mmap, at, n, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == (long)(uintptr_t)at;
}

static size_t bitmap_bytes(size_t pages) { return (pages + 63) / 64 * 8; }

static uint64_t *new_bitmap(size_t pages)
{
    long p = syscall(SYS_mmap, NULL, bitmap_bytes(pages), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                     -1, 0);
    return p < 0 && p > -4096 ? NULL : (uint64_t *)(uintptr_t)p; /* NOLINT(performance-no-int-to-ptr) */
}

static void free_bitmap(uint64_t *p, size_t pages)
{
    if (p != NULL)
        (void)syscall(SYS_munmap, p, bitmap_bytes(pages)); /* cannot fail for a whole mapping */
}

static _Atomic uint64_t *word(uint64_t *bits, uint64_t page)
{
    return (_Atomic uint64_t *)(void *)&bits[page >> 6];
}

/* The bitmap of f, made if there is none; NULL without memory. */
static uint64_t *bitmap_of(struct cht_fault *f)
{
    uint64_t *bits = atomic_load(&f->lost);
    if (bits != NULL)
        return bits;
    uint64_t *fresh = new_bitmap(f->lost_pages);
    if (fresh == NULL || atomic_compare_exchange_strong(&f->lost, &bits, fresh))
        return fresh;
    free_bitmap(fresh, f->lost_pages); /* another thread was first */
    return bits;
}

static void distrust(struct cht_fault *f, uint64_t page)
{
    if (f->trusted != NULL)
        atomic_fetch_and(&f->trusted[page >> 6], ~(UINT64_C(1) << (page & 63)));
}

/* Everything is lost: one mapping takes the place of all, which needs no room for more of them. */
static bool give_up(struct cht_fault *f)
{
    atomic_store(&f->all, true);
    for (uint64_t p = 0; p < f->len / CHT_FAULT_PAGE; p++)
        distrust(f, p);
    atomic_fetch_add(&f->events, 1);
    return map_zeros(f->base, f->len);
}

/* Notes the loss, then puts zeros in place: in this order. */
static bool lose(struct cht_fault *f, size_t off)
{
    off = off / kernel_page * kernel_page;
    uint64_t first = off / CHT_FAULT_PAGE, n = kernel_page / CHT_FAULT_PAGE;
    uint64_t *bits = bitmap_of(f);
    if (bits == NULL || atomic_load(&f->all))
        return give_up(f);
    for (uint64_t p = first; p < first + n && p < f->lost_pages; p++) {
        (void)atomic_fetch_or(word(bits, p), UINT64_C(1) << (p & 63));
        distrust(f, p);
    }
    atomic_fetch_add(&f->events, 1);
    return map_zeros(f->base + off, kernel_page) || give_up(f);
}

/* The mapping of an entry if it holds the address. */
static struct cht_fault *match(struct entry *e, uintptr_t at, size_t *off)
{
    uint32_t seq = atomic_load_explicit(&e->seq, memory_order_acquire);
    uintptr_t base = atomic_load_explicit(&e->base, memory_order_relaxed);
    size_t len = atomic_load_explicit(&e->len, memory_order_relaxed);
    struct cht_fault *f = atomic_load_explicit(&e->f, memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
    if ((seq & 1) != 0 || atomic_load_explicit(&e->seq, memory_order_relaxed) != seq)
        return NULL;
    *off = at - base;
    return f != NULL && at >= base && *off < len ? f : NULL;
}

static bool rescue(uintptr_t at)
{
    uint32_t n = atomic_load_explicit(&used_chunks, memory_order_acquire);
    for (uint32_t c = 0; c < n; c++) {
        struct entry *e = atomic_load_explicit(&chunks[c], memory_order_acquire);
        for (uint32_t i = 0; e != NULL && i < CHUNK; i++) {
            size_t off;
            struct cht_fault *f = match(&e[i], at, &off);
            if (f != NULL)
                return lose(f, off);
        }
    }
    return false;
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
    int saved = errno;
    (void)context;
    if (info->si_code <= 0 || !rescue((uintptr_t)info->si_addr)) {
        (void)sigaction(number, &before, NULL); /* the same instruction faults again, and that decides */
        if (info->si_code <= 0)
            (void)raise(number); /* somebody sent it: delivered when this returns */
    }
    errno = saved;
}

/* ---- the table ------------------------------------------------------------------------------------------------- */

static void install(void)
{
    long page = sysconf(_SC_PAGESIZE);
    kernel_page = page > (long)CHT_FAULT_PAGE ? (size_t)page : CHT_FAULT_PAGE;
    cht_fault_catch();
}

static struct entry *entry_of(uint32_t slot)
{
    return &atomic_load_explicit(&chunks[slot / CHUNK], memory_order_acquire)[slot % CHUNK];
}

/* A free entry; 0 without memory. mu held. */
static uint32_t take_slot(void)
{
    uint32_t slot = free_head;
    if (slot != 0) {
        free_head = entry_of(slot)->next_free;
        return slot;
    }
    if (used / CHUNK == CHUNKS)
        return 0;
    if (atomic_load(&chunks[used / CHUNK]) == NULL) {
        struct entry *e = cht_calloc(CHUNK, sizeof *e);
        if (e == NULL)
            return 0;
        atomic_store_explicit(&chunks[used / CHUNK], e, memory_order_release);
        atomic_store_explicit(&used_chunks, used / CHUNK + 1, memory_order_release);
    }
    return used++;
}

static void put(struct entry *e, struct cht_fault *f)
{
    atomic_fetch_add_explicit(&e->seq, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&e->base, f == NULL ? 0 : (uintptr_t)f->base, memory_order_relaxed);
    atomic_store_explicit(&e->len, f == NULL ? 0 : f->len, memory_order_relaxed);
    atomic_store_explicit(&e->f, f, memory_order_relaxed);
    atomic_fetch_add_explicit(&e->seq, 1, memory_order_release);
}

/* Word by word, as they are used: the thread sanitizer does not see where the handler maps, and would hold what once lay at the
 * same address against a plain copy. */
static void copy_bits(uint64_t *to, uint64_t *from, size_t pages)
{
    for (uint64_t page = 0; page < pages; page += 64)
        atomic_store_explicit(word(to, page), atomic_load_explicit(word(from, page), memory_order_relaxed),
                              memory_order_relaxed);
}

/* More bits for a longer mapping. */
static void widen(struct cht_fault *f, size_t pages)
{
    uint64_t *old = atomic_load(&f->lost);
    if (old != NULL && pages > f->lost_pages) {
        uint64_t *bits = new_bitmap(pages);
        if (bits == NULL) {
            atomic_store(&f->all, true);
            return;
        }
        copy_bits(bits, old, f->lost_pages);
        atomic_store(&f->lost, bits);
        free_bitmap(old, f->lost_pages);
    }
    f->lost_pages = pages;
}

/* ---------------------------------------------------------------------------------------------------------------- */

void cht_fault_catch(void)
{
    struct sigaction a = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART},
                     old;
    (void)sigemptyset(&a.sa_mask);
    (void)sigaction(SIGBUS, &a, &old); /* cannot fail with these arguments */
    if ((old.sa_flags & SA_SIGINFO) == 0 || old.sa_sigaction != on_bus_error)
        before = old;
}

enum cht_rc cht_fault_add(struct cht_fault *f, uint8_t *base, size_t len, _Atomic uint64_t *trusted,
                          struct cht_err *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, install);
    (void)pthread_mutex_lock(&mu);
    f->slot = take_slot();
    (void)pthread_mutex_unlock(&mu);
    if (f->slot == 0)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the table of mappings");
    cht_fault_show(f, base, len, trusted);
    return CHT_OK;
}

void cht_fault_hide(struct cht_fault *f) { put(entry_of(f->slot), NULL); }

void cht_fault_show(struct cht_fault *f, uint8_t *base, size_t len, _Atomic uint64_t *trusted)
{
    widen(f, len / CHT_FAULT_PAGE);
    f->base = base;
    f->len = len;
    f->trusted = trusted;
    put(entry_of(f->slot), f);
}

void cht_fault_remove(struct cht_fault *f)
{
    if (f->slot == 0)
        return;
    struct entry *e = entry_of(f->slot);
    put(e, NULL);
    (void)pthread_mutex_lock(&mu);
    e->next_free = free_head;
    free_head = f->slot;
    (void)pthread_mutex_unlock(&mu);
    f->slot = 0;
    free_bitmap(atomic_exchange(&f->lost, NULL), f->lost_pages);
}

bool cht_fault_test(const struct cht_fault *f, uint64_t page)
{
    if (atomic_load(&f->all))
        return true;
    uint64_t *bits = atomic_load(&f->lost);
    return bits != NULL && page < f->lost_pages && (atomic_load(word(bits, page)) >> (page & 63) & 1) != 0;
}

void cht_fault_found(struct cht_fault *f, uint64_t page)
{
    uint64_t *bits = atomic_load(&f->lost);
    if (bits != NULL && page < f->lost_pages)
        (void)atomic_fetch_and(word(bits, page), ~(UINT64_C(1) << (page & 63)));
}
