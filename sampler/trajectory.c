/* trajectory.c - the table of samplers, and from a configuration and options to rows of coefficients. */
#include "sampler/trajectory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A new sampler is a row here and a file with its make. */
static const ht_sampler *const samplers[] = {&ht_ddim,  &ht_ddpm, &ht_euler,      &ht_euler_ancestral,
                                             &ht_heun,  &ht_pndm, &ht_dpm_solver, &ht_dpm_solver_sde,
                                             &ht_unipc, &ht_deis, &ht_lcm,        NULL};

static bool serves(const ht_sampler *sampler, const char *class_name)
{
    const char *const *name = sampler->class_names;
    while (*name && strcmp(*name, class_name))
        name++;
    return *name != NULL;
}

const char *ht_sampler_for(const char *class_name)
{
    for (const ht_sampler *const *s = samplers; class_name && *s; s++)
        if (serves(*s, class_name))
            return (*s)->name;
    return ht_ddim.name;
}

const char *ht_sampler_name(int i, const char **words)
{
    bool inside = i >= 0 && i < (int)(sizeof samplers / sizeof *samplers) - 1;
    if (inside && words)
        *words = samplers[i]->words;
    return inside ? samplers[i]->name : NULL;
}

static ht_status refuse_sampler(const char *name)
{
    char known[256] = "";
    size_t used = 0;
    for (const ht_sampler *const *s = samplers; *s && used < sizeof known; s++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", (*s)->name);
    return ht_fail(HT_ERR_ARGUMENT, "sampler \"%s\" is not known; this version has %s", name, known);
}

static ht_status find_sampler(const char *name, const ht_sampler **out)
{
    for (const ht_sampler *const *s = samplers; *s; s++) {
        if (!strcmp((*s)->name, name)) {
            *out = *s;
            return HT_OK;
        }
    }
    return refuse_sampler(name);
}

static ht_status find_spacing(const char *name, ht_spacing fallback, ht_spacing *out)
{
    int found = name ? ht_spacing_find(name) : (int)fallback;
    char known[256] = "";
    size_t used = 0;
    if (found >= 0) {
        *out = (ht_spacing)found;
        return HT_OK;
    }
    for (int i = 0; ht_spacing_name(i) && used < sizeof known; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", ht_spacing_name(i));
    return ht_fail(HT_ERR_ARGUMENT, "spacing \"%s\" is not known; this version has %s", name, known);
}

double ht_next_alpha(const ht_trajectory_source *source, int i)
{
    return i + 1 < source->steps.n ? source->alphas_cumprod[source->steps.timesteps[i + 1]] : 1;
}

ht_status ht_predict_x0(const ht_trajectory_source *source, int i, ht_step_row *row)
{
    int t = source->steps.timesteps[i];
    double a = source->alphas_cumprod[t];
    switch (source->config->prediction_type) {
    case HT_PREDICT_EPSILON: /* DDIM eq. 9 */
        if (a == 0)
            return ht_fail(HT_ERR_ARGUMENT,
                           "alphas_cumprod is 0 at timestep %d: a model that predicts epsilon cannot start there", t);
        row->x0_of_x = (float)(1 / sqrt(a));
        row->x0_of_out = (float)(-sqrt(1 - a) / sqrt(a));
        break;
    case HT_PREDICT_V: /* arXiv:2202.00512, appendix D */
        row->x0_of_x = (float)sqrt(a);
        row->x0_of_out = (float)-sqrt(1 - a);
        break;
    case HT_PREDICT_SAMPLE:
        row->x0_of_x = 0;
        row->x0_of_out = 1;
        break;
    }
    return HT_OK;
}

ht_bound ht_bound_of(const ht_schedule_config *config, bool clips, bool thresholds)
{
    return thresholds && config->thresholding ? HT_BOUND_THRESHOLD
           : clips && config->clip_sample     ? HT_BOUND_CLIP
                                              : HT_BOUND_NONE;
}

ht_step_row *ht_rows(ht_arena *arena, int n)
{
    ht_step_row *rows = ht_alloc_array(arena, (size_t)n, sizeof *rows);
    for (int i = 0; rows && i < n; i++)
        rows[i] = (ht_step_row){.scale = 1, .signal = 1, .keep = HT_NO_SLOT, .keep_x = HT_NO_SLOT};
    return rows;
}

ht_status ht_refuse_spacing(const ht_trajectory_source *source, const char *what)
{
    const char *unsupported = source->config->solver.unsupported;
    if (source->spacing > HT_SPACING_LINSPACE)
        return ht_fail(HT_ERR_ARGUMENT, "%s spacing belongs to ddim and ddpm; %s takes leading, trailing or linspace",
                       ht_spacing_name((int)source->spacing), what);
    if (unsupported)
        return ht_fail(HT_ERR_UNSUPPORTED, "scheduler configuration: %s is not supported with %s", unsupported, what);
    return HT_OK;
}

ht_status ht_make_rows(ht_trajectory_source *source, ht_trajectory *out,
                       ht_status (*make_row)(const ht_trajectory_source *source, int i, ht_step_row *row))
{
    const ht_trajectory_options *o = source->options;
    ht_status status = ht_steps_make(source->arena, source->config, source->spacing, o->steps, &source->steps);
    if (!status && source->sigma_spacing && o->sigmas)
        status = ht_fail(HT_ERR_ARGUMENT, "%s sigmas do not belong to %s", o->sigmas, out->sampler->name);
    if (status)
        return status;
    int n = source->steps.n - o->skip;
    ht_step_row *rows = ht_rows(source->arena, n);
    if (!rows)
        return HT_ERR_MEMORY;
    for (int i = 0; !status && i < n; i++) {
        double a = source->alphas_cumprod[source->steps.timesteps[i + o->skip]];
        rows[i].timestep = (float)source->steps.timesteps[i + o->skip];
        rows[i].signal = (float)sqrt(a);
        rows[i].sigma = (float)sqrt(1 - a);
        status = make_row(source, i + o->skip, &rows[i]);
    }
    out->n = n;
    out->rows = rows;
    out->bound = ht_bound_of(source->config, true, true);
    return status;
}

static ht_status find_sigmas(const ht_trajectory_source *source, ht_sigma_spacing *out)
{
    static const char *const names[] = {"default", "karras", "exponential"};
    const char *name = source->options->sigmas;
    *out = source->config->solver.sigmas;
    for (int i = 0; name && i < 3; i++)
        if (!strcmp(name, names[i])) {
            *out = (ht_sigma_spacing)i;
            return HT_OK;
        }
    return name ? ht_fail(HT_ERR_ARGUMENT, "sigmas \"%s\" are not known; this version has default, karras, exponential",
                          name)
                : HT_OK;
}

static ht_status check_options(const ht_trajectory_options *o, const ht_sampler *sampler)
{
    if (!sampler->takes_eta && o->eta != 0)
        return ht_fail(HT_ERR_ARGUMENT, "eta is %g; %s has none, it belongs to ddim", o->eta, sampler->name);
    if (o->skip < 0 || (o->skip && o->skip >= o->steps))
        return ht_fail(HT_ERR_ARGUMENT, "%d of %d steps are left out; one at least must be taken", o->skip, o->steps);
    return HT_OK;
}

static ht_status find_all(ht_trajectory_source *source, ht_trajectory *p)
{
    const ht_schedule_config *config = source->config;
    const ht_trajectory_options *o = source->options;
    const char *name = o->sampler ? o->sampler : ht_sampler_for(config->class_name);
    ht_status status = find_sampler(name, &p->sampler);
    status = status ? status : check_options(o, p->sampler);
    status = status ? status : find_spacing(o->spacing, config->timestep_spacing, &source->spacing);
    return status ? status : find_sigmas(source, &source->sigma_spacing);
}

ht_status ht_trajectory_make(ht_arena *arena, const ht_schedule_config *config, const ht_trajectory_options *options,
                             ht_trajectory *trajectory)
{
    ht_trajectory p = {.config = config, .init_noise_sigma = 1};
    ht_trajectory_source source = {.arena = arena, .config = config, .options = options};
    float *alphas_cumprod;
    ht_status status = find_all(&source, &p);
    status = status ? status : ht_schedule_alphas(arena, config, &alphas_cumprod);
    if (status)
        return status;
    source.alphas_cumprod = alphas_cumprod;
    status = p.sampler->make(&source, &p);
    for (int i = 0; !status && i < p.n; i++)
        p.needs_variance |= p.rows[i].noise == HT_NOISE_LEARNED || p.rows[i].noise == HT_NOISE_LEARNED_RANGE;
    if (!status)
        *trajectory = p;
    return status;
}
