/* steps.c - which of the training timesteps a sampler visits.
 *
 * leading, trailing, linspace: arXiv:2305.08891, table 2, as diffusers rounds them.  uniform, quad: DDIM
 * (arXiv:2010.02502), appendix D.2, as in github.com/ermongroup/ddim.  adm: github.com/openai/guided-diffusion.
 *
 * Traps: rounding is to even, and where a fraction is a half the last bit of numpy's arithmetic decides, so its order
 * of operations is kept.  For some counts (61, 103, 121: 62 of 1 .. 1000) numpy's arange has one entry too many for
 * trailing, so diffusers visits a timestep -1 after the last, and takes alphas_cumprod[-1], pure noise, for it; here
 * the list ends after as many steps as were asked for.  Otherwise it is the same. */
#include "sampler/steps.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {
    [HT_SPACING_LEADING] = "leading", [HT_SPACING_TRAILING] = "trailing", [HT_SPACING_LINSPACE] = "linspace",
    [HT_SPACING_UNIFORM] = "uniform", [HT_SPACING_QUAD] = "quad",         [HT_SPACING_ADM] = "adm",
};

int ht_spacing_find(const char *name)
{
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
        if (!strcmp(names[i], name))
            return i;
    return -1;
}

const char *ht_spacing_name(int spacing)
{
    return spacing >= 0 && spacing < (int)(sizeof names / sizeof *names) ? names[spacing] : NULL;
}

/* Entry i of numpy.linspace(0, stop, n). */
static double linspace_at(double stop, int n, int i)
{
    if (i == n - 1 && n > 1)
        return stop;
    return i * (stop / (n > 1 ? n - 1 : 1));
}

/* Entry i of numpy.arange(from, 0, -stride): the step is the difference of the first two entries. */
static double arange_down_at(double from, double stride, int i)
{
    double step = (from - stride) - from;
    return from + i * step;
}

/* In rising order, i = 0, 1, ... */
static int timestep_at(const ht_schedule_config *c, ht_spacing spacing, int steps, int i)
{
    int total = c->num_train_timesteps, stride = total / steps;
    double root;
    switch (spacing) {
    case HT_SPACING_LEADING:
        return i * stride + c->steps_offset;
    case HT_SPACING_TRAILING:
        return (int)rint(arange_down_at(total, (double)total / steps, steps - 1 - i)) - 1;
    case HT_SPACING_LINSPACE:
        return (int)rint(linspace_at(total - 1, steps, i));
    case HT_SPACING_UNIFORM:
        return i * stride;
    default: /* quad */
        root = linspace_at(sqrt(total * 0.8), steps, i);
        return (int)(root * root);
    }
}

static void reverse(int n, int *list)
{
    for (int i = 0; i < n / 2; i++) {
        int t = list[i];
        list[i] = list[n - 1 - i];
        list[n - 1 - i] = t;
    }
}

ht_status ht_steps_make(ht_arena *arena, const ht_schedule_config *config, ht_spacing spacing, int steps, ht_steps *out)
{
    int total = config->num_train_timesteps;
    char section[16];
    if (steps < 1 || steps > total)
        return ht_fail(HT_ERR_ARGUMENT, "steps is %d; wanted 1 to %d, the timesteps that the model was trained with",
                       steps, total);
    if (spacing == HT_SPACING_ADM) {
        snprintf(section, sizeof section, "%d", steps);
        return ht_steps_respace(arena, total, section, out);
    }
    int stride = total / steps;
    int n = spacing == HT_SPACING_UNIFORM ? (total + stride - 1) / stride : steps;
    int *list = ht_alloc_array(arena, (size_t)n, sizeof *list);
    if (!list)
        return HT_ERR_MEMORY;
    for (int i = 0; i < n; i++) {
        int t = list[n - 1 - i] = timestep_at(config, spacing, steps, i);
        if (t < 0 || t >= total)
            return ht_fail(
                HT_ERR_ARGUMENT,
                "%s spacing of %d steps with steps_offset %d visits timestep %d; the last is %d: take fewer steps",
                names[spacing], steps, config->steps_offset, t, total - 1);
    }
    *out = (ht_steps){.n = n, .timesteps = list};
    return HT_OK;
}

/* ---- ADM's space_timesteps ---- */

enum { MAX_SECTIONS = 64 };

static ht_status parse_sections(const char *text, int *counts, int *n)
{
    const char *s = text;
    for (*n = 0; *n < MAX_SECTIONS; s++) {
        char *end;
        errno = 0;
        long count = strtol(s, &end, 10);
        if (end == s || errno || count < 1 || count > HT_MAX_TRAIN_TIMESTEPS)
            break;
        counts[(*n)++] = (int)count;
        s = end;
        if (*s == '\0')
            return HT_OK;
        if (*s != ',')
            break;
    }
    return ht_fail(
        HT_ERR_ARGUMENT,
        "timestep sections \"%s\": wanted counts like \"250\" or \"90,60,60,20,20\", at most %d of them, or \"ddim25\"",
        text, MAX_SECTIONS);
}

/* The smallest stride through `total` timesteps that visits `count` of them. */
static ht_status strided(int total, int count, ht_steps *out)
{
    for (int stride = 1; stride < total; stride++) {
        if ((total + stride - 1) / stride != count)
            continue;
        for (int i = 0; i < count; i++)
            out->timesteps[out->n++] = i * stride;
        return HT_OK;
    }
    return ht_fail(HT_ERR_ARGUMENT, "no stride visits exactly %d of %d timesteps", count, total);
}

/* count timesteps of start .. start+size-1, both ends included. */
static ht_status spread(int start, int size, int count, ht_steps *out)
{
    if (count > size)
        return ht_fail(HT_ERR_ARGUMENT, "%d timesteps cannot be divided into %d steps", size, count);
    double stride = count > 1 ? (double)(size - 1) / (count - 1) : 1;
    double at = 0;
    for (int i = 0; i < count; i++, at += stride)
        out->timesteps[out->n++] = start + (int)rint(at);
    return HT_OK;
}

ht_status ht_steps_respace(ht_arena *arena, int num_train_timesteps, const char *sections, ht_steps *out)
{
    int counts[MAX_SECTIONS], n, start = 0;
    bool by_stride = !strncmp(sections, "ddim", 4);
    ht_status status = parse_sections(by_stride ? sections + 4 : sections, counts, &n);
    ht_steps steps = {.timesteps = ht_alloc_array(arena, (size_t)num_train_timesteps, sizeof(int))};
    if (status)
        return status;
    if (!steps.timesteps)
        return HT_ERR_MEMORY;
    if (by_stride)
        status = n == 1 ? strided(num_train_timesteps, counts[0], &steps)
                        : ht_fail(HT_ERR_ARGUMENT, "timestep sections \"%s\": wanted one count after ddim", sections);
    for (int i = 0; i < n && !by_stride && !status; i++) {
        int size = num_train_timesteps / n + (i < num_train_timesteps % n);
        status = spread(start, size, counts[i], &steps);
        start += size;
    }
    if (status)
        return status;
    reverse(steps.n, steps.timesteps);
    *out = steps;
    return HT_OK;
}
