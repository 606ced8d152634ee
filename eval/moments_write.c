/* moments_write.c - mean and covariance to an .npz, as numpy.savez stores it: members stored, float64. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "core/arena.h"
#include "core/file.h"
#include "eval/moments.h"

/* An entry of the archive (PKWARE's APPNOTE 4.3.7 and 4.3.12); no date but the format's first, so that the same
 * statistics are the same bytes. */
typedef struct member {
    char name[16];
    const double *data;
    size_t count;
    int ndim;
    int64_t shape[2];
    char header[128]; /* .npy's, NPY_HEADER bytes */
    uint32_t crc, offset;
} member;

enum { NPY_HEADER = 128, LOCAL = 30, CENTRAL = 46, END = 22, DATE = 1 << 5 | 1, VERSION = 20 };

static void make_header(member *m)
{
    char shape[64];
    if (m->ndim == 2)
        snprintf(shape, sizeof shape, "(%lld, %lld)", (long long)m->shape[0], (long long)m->shape[1]);
    else
        snprintf(shape, sizeof shape, m->ndim ? "(%lld,)" : "()", (long long)m->shape[0]);
    memset(m->header, ' ', NPY_HEADER);
    memcpy(m->header, "\x93NUMPY\x01\x00\x76\x00", 10); /* 118 bytes of text follow */
    int n = snprintf(m->header + 10, NPY_HEADER - 10, "{'descr': '<f8', 'fortran_order': False, 'shape': %s, }", shape);
    m->header[10 + n] = ' ';
    m->header[NPY_HEADER - 1] = '\n';
}

static size_t bytes_of(const member *m)
{
    return NPY_HEADER + m->count * sizeof *m->data;
}

static void put(unsigned char **at, uint32_t value, int bytes)
{
    for (; bytes--; value >>= 8)
        *(*at)++ = (unsigned char)value;
}

/* The fields that a local and a central header share. */
static void put_fields(unsigned char **at, const member *m)
{
    put(at, VERSION, 2);
    put(at, 0, 4); /* flags; stored */
    put(at, 0, 2);
    put(at, DATE, 2);
    put(at, m->crc, 4);
    put(at, (uint32_t)bytes_of(m), 4);
    put(at, (uint32_t)bytes_of(m), 4);
    put(at, (uint32_t)strlen(m->name), 2);
    put(at, 0, 2);
}

static void write_member(FILE *f, member *m, uint32_t *offset)
{
    unsigned char local[LOCAL], *at = local;
    make_header(m);
    m->crc = (uint32_t)crc32(0, (const Bytef *)m->header, NPY_HEADER);
    m->crc = (uint32_t)crc32_z(m->crc, (const Bytef *)m->data, m->count * sizeof *m->data);
    m->offset = *offset;
    put(&at, 0x04034b50, 4);
    put_fields(&at, m);
    fwrite(local, 1, LOCAL, f);
    fwrite(m->name, 1, strlen(m->name), f);
    fwrite(m->header, 1, NPY_HEADER, f);
    fwrite(m->data, sizeof *m->data, m->count, f);
    *offset += (uint32_t)(LOCAL + strlen(m->name) + bytes_of(m));
}

static void write_directory(FILE *f, const member *m, int n, uint32_t offset)
{
    uint32_t size = 0;
    for (int i = 0; i < n; i++) {
        unsigned char central[CENTRAL], *at = central;
        put(&at, 0x02014b50, 4);
        put(&at, VERSION, 2);
        put_fields(&at, &m[i]);
        put(&at, 0, 4); /* no comment; disk 0 */
        put(&at, 0, 4);
        put(&at, 0, 2);
        put(&at, m[i].offset, 4);
        fwrite(central, 1, CENTRAL, f);
        fwrite(m[i].name, 1, strlen(m[i].name), f);
        size += (uint32_t)(CENTRAL + strlen(m[i].name));
    }
    unsigned char end[END], *at = end;
    put(&at, 0x06054b50, 4);
    put(&at, 0, 4);
    put(&at, (uint32_t)n, 2);
    put(&at, (uint32_t)n, 2);
    put(&at, size, 4);
    put(&at, offset, 4);
    put(&at, 0, 2);
    fwrite(end, 1, END, f);
}

ht_status ht_moments_write(const char *path, const ht_moments *m, int64_t n)
{
    size_t dim = (size_t)m->dim;
    double count = (double)n;
    member members[] = {
        {.name = "mu.npy", .data = m->mu, .count = dim, .ndim = 1, .shape = {m->dim}},
        {.name = "sigma.npy", .data = m->sigma, .count = dim * dim, .ndim = 2, .shape = {m->dim, m->dim}},
        {.name = "n.npy", .data = &count, .count = 1, .ndim = 0}};
    uint32_t offset = 0;
    ht_output *output;
    ht_status status = ht_output_open(path, &output);
    if (status)
        return status;
    FILE *f = ht_output_stream(output);
    for (int i = 0; i < 3; i++)
        write_member(f, &members[i], &offset);
    write_directory(f, members, 3, offset);
    return ht_output_commit(output); /* which reports what went wrong in the writes */
}
