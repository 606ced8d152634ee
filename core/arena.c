/* arena.c - a list of blocks, each twice the last; an allocation larger than a block gets its own. */
#include "core/arena.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"

enum { ALIGN = 64, FIRST_BLOCK = 16 << 10, LAST_BLOCK = 4 << 20 };

typedef struct block {
    struct block *next;
    size_t size, used; /* bytes after the header */
} block;

enum { HEADER = (sizeof(block) + ALIGN - 1) / ALIGN * ALIGN };

struct ht_arena {
    block *blocks;
    size_t next_size;
};

bool ht_mul_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

bool ht_add_size(size_t a, size_t b, size_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

ht_arena *ht_arena_create(void)
{
    ht_arena *arena = calloc(1, sizeof *arena);
    if (!arena) {
        ht_fail(HT_ERR_MEMORY, "out of memory");
        return NULL;
    }
    arena->next_size = FIRST_BLOCK;
    return arena;
}

void ht_arena_free(ht_arena *arena)
{
    if (!arena)
        return;
    for (block *b = arena->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(arena);
}

static block *add_block(ht_arena *arena, size_t size)
{
    size_t total = 0;
    if (size < arena->next_size)
        size = arena->next_size;
    block *b = size <= SIZE_MAX - HEADER - ALIGN ? aligned_alloc(ALIGN, total = HEADER + size) : NULL;
    if (!b) {
        ht_fail(HT_ERR_MEMORY, "out of memory for %zu bytes", size);
        return NULL;
    }
    memset(b, 0, total);
    *b = (block){.next = arena->blocks, .size = size};
    arena->blocks = b;
    if (arena->next_size < LAST_BLOCK)
        arena->next_size *= 2;
    return b;
}

void *ht_alloc(ht_arena *arena, size_t size)
{
    if (size > SIZE_MAX / 2) {
        ht_fail(HT_ERR_MEMORY, "out of memory for %zu bytes", size);
        return NULL;
    }
    size = (size + ALIGN - 1) / ALIGN * ALIGN;
    size += size ? 0 : ALIGN;
    block *b = arena->blocks;
    if (!b || b->size - b->used < size)
        b = add_block(arena, size);
    if (!b)
        return NULL;
    char *p = (char *)b + HEADER + b->used;
    b->used += size;
    return p;
}

void *ht_alloc_array(ht_arena *arena, size_t count, size_t size)
{
    size_t bytes;
    if (!ht_mul_size(count, size, &bytes)) {
        ht_fail(HT_ERR_MEMORY, "out of memory for %zu times %zu bytes", count, size);
        return NULL;
    }
    return ht_alloc(arena, bytes);
}

char *ht_strdup(ht_arena *arena, const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = ht_alloc(arena, n);
    return copy ? memcpy(copy, s, n) : NULL;
}

char *ht_sprintf(ht_arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *s = n < 0 ? NULL : ht_alloc(arena, (size_t)n + 1);
    if (!s)
        return NULL;
    va_start(args, format);
    vsnprintf(s, (size_t)n + 1, format, args);
    va_end(args);
    return s;
}
