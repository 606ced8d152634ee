/* reference_rotate.c - the scalar kernel of the blockwise rotation; there is no other yet. */
#include "quant/rotate.h"

#include <string.h>

#include "cpu/reference.h"

static void rotate(const ht_call *c, const ht_team *team)
{
    int64_t r, end, n = ht_channels(c->op->out);
    ht_team_share(team, ht_rows(c->op->out, c->n), &r, &end);
    for (; r < end; r++) {
        memcpy(c->out + r * n, c->in[HT_IN_X] + r * n, (size_t)n * sizeof(float));
        ht_rotate((size_t)n, c->op->attrs.count, c->out + r * n);
    }
}

const ht_kernel ht_ref_rotate = {.name = "rotate_f32_scalar", .op = HT_OP_rotate, .run = rotate};
