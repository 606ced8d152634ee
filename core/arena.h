/* arena.h - memory that is freed as one: graphs, plans, configurations, names. */
#ifndef HT_CORE_ARENA_H
#define HT_CORE_ARENA_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct ht_arena ht_arena;

ht_arena *ht_arena_create(void);     /* NULL: out of memory (the error message is set) */
void ht_arena_free(ht_arena *arena); /* everything allocated from it; NULL is allowed */

/* Zeroed memory aligned to 64 bytes, or NULL with the error message set.  size 0 gives a unique pointer. */
void *ht_alloc(ht_arena *arena, size_t size);
void *ht_alloc_array(ht_arena *arena, size_t count, size_t size); /* NULL on overflow too */
char *ht_strdup(ht_arena *arena, const char *s);
char *ht_sprintf(ht_arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Sizes from files pass through these before any arithmetic or allocation: false on overflow, *out untouched. */
bool ht_mul_size(size_t a, size_t b, size_t *out);
bool ht_add_size(size_t a, size_t b, size_t *out);

#endif
