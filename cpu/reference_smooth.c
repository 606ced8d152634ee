/* reference_smooth.c - the scalar kernel of smoothing: x * factor, a factor a channel; floats, or codes of them. */
#include "cpu/reference.h"

static void smooth(const ht_call *c, const ht_team *team)
{
    int64_t r, end, n = ht_channels(c->op->out);
    const float *factor = c->packed;
    ht_team_share(team, ht_rows(c->op->out, c->n), &r, &end);
    for (; r < end; r++)
        for (int64_t i = 0; i < n; i++)
            ht_store(c, r * n + i, c->in[HT_IN_X][r * n + i] * factor[i]);
}

const ht_kernel ht_ref_smooth = {.name = "smooth_f32_scalar",
                                 .op = HT_OP_smooth,
                                 .packed = ht_rms_norm_bytes,
                                 .pack = ht_rms_norm_pack,
                                 .run = smooth};
