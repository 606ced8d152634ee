/* model.c - opening a model: which folder, which family, which weights, which scheduler.
 *
 * A pipeline is a folder with model_index.json, which says of which class each component is; a component is a folder
 * with config.json and weights, in a subfolder of its name or, as in google/ddpm-*, beside model_index.json.  A
 * component's folder is a model too; it has no scheduler unless a scheduler_config.json lies in it.  The families of
 * denoisers and the dialects of configurations are two tables; only this file asks. */
#include "sampler/model.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "dit/dit.h"
#include "quant/file.h"
#include "sampler/single_file.h"
#include "unet/names_ldm.h"
#include "unet/unet2d.h"
#include "unet/unet2d_condition.h"
#include "vae/vae.h"

/* ---- tables ---- */

/* A family, and how the names of its older checkpoints become today's. */
static const struct family_row {
    const ht_denoiser_family *denoiser; /* one of the two */
    const ht_autoencoder_family *autoencoder;
    ht_rename rename;
} families[] = {
    {&ht_unet2d_family, NULL, ht_unet2d_rename},
    {&ht_unet2d_condition_family, NULL, NULL},
    {&ht_dit_family, NULL, ht_facebook_rename},
    {&ht_pixart_family, NULL, NULL},
    {NULL, &ht_kl_family, ht_unet2d_rename},
    {NULL, &ht_vq_family, ht_unet2d_rename},
    {NULL, &ht_tiny_family, NULL},
};

static const char *class_of(const struct family_row *row)
{
    return row->denoiser ? row->denoiser->class_name : row->autoencoder->class_name;
}

/* What a pipeline calls its denoiser, and what makes pictures of the latents that come out of one. */
static const char *const denoiser_names[] = {"unet", "transformer"};
static const char *const decoder_names[] = {"vae", "vqvae", "movq", "vqgan"};

/* In the order of preference; a index.json names shards. */
static const char *const weight_files[] = {
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors",
    "model.fp16.safetensors",
    "model.safetensors.index.json",
};

/* Formats that can run code when they are read. */
static const char *const pickles[] = {".bin", ".ckpt", ".pth", ".pt"};

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* ---- files ---- */

static bool is_folder(const char *path)
{
    struct stat st;
    return path && !stat(path, &st) && S_ISDIR(st.st_mode);
}

static bool exists(const char *path)
{
    struct stat st;
    return path && !stat(path, &st);
}

static bool ends(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* The name of a file in folder that is a pickle; "" if none is. */
static const char *find_pickle(ht_arena *arena, const char *folder)
{
    const char *found = "";
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && !*found && (e = readdir(dir));)
        for (size_t i = 0; i < COUNT(pickles) && !*found; i++)
            if (ends(e->d_name, pickles[i]) && !(found = ht_strdup(arena, e->d_name)))
                found = "";
    if (dir)
        closedir(dir);
    return found;
}

ht_status ht_open_weights(ht_arena *arena, const char *folder, ht_safetensors **file)
{
    for (size_t i = 0; i < COUNT(weight_files); i++) {
        const char *path = ht_sprintf(arena, "%s/%s", folder, weight_files[i]);
        if (!path)
            return HT_ERR_MEMORY;
        if (exists(path))
            return ht_safetensors_open(path, file);
    }
    const char *pickle = find_pickle(arena, folder);
    if (*pickle)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: the weights are only there as a pickle, %s; convert them to %s", folder,
                       pickle, weight_files[0]);
    return ht_fail(HT_ERR_IO, "%s: no weights: want %s, %s, %s or %s", folder, weight_files[0], weight_files[1],
                   weight_files[2], weight_files[3]);
}

/* ---- which folder ---- */

/* Whether a pipeline has a component; diffusers writes [null, null] for one that was left out. */
static bool has_component(const json_t *index, const char *name)
{
    return json_is_string(json_array_get(json_object_get(index, name), 1));
}

static ht_status choose_component(const json_t *index, const char *where, const char **component)
{
    for (size_t i = 0; !*component && i < COUNT(denoiser_names); i++)
        if (has_component(index, denoiser_names[i]))
            *component = denoiser_names[i];
    if (!*component)
        return ht_fail(HT_ERR_UNSUPPORTED,
                       "%s: the pipeline has no denoiser; want a component named unet or transformer", where);
    if (!has_component(index, *component))
        return ht_fail(HT_ERR_ARGUMENT, "%s: the pipeline has no component named %s", where, *component);
    return HT_OK;
}

/* The two folders that matter.  scheduler: where to look for one. */
typedef struct places {
    const char *component, *scheduler;
    bool scheduler_promised; /* model_index.json lists one */
    ht_single_file single;   /* instead of a component's folder, if it has weights */
} places;

static ht_status find_in_pipeline(ht_model *m, const char *index_path, const char *component, places *p)
{
    json_t *index = NULL;
    ht_status status = ht_json_read(index_path, &index);
    if (!status)
        status = choose_component(index, index_path, &component);
    if (status)
        goto done;
    const char *folder = ht_sprintf(m->arena, "%s/%s", m->path, component);
    const char *scheduler = ht_sprintf(m->arena, "%s/scheduler", m->path);
    if (!folder || !scheduler) {
        status = HT_ERR_MEMORY;
        goto done;
    }
    p->component = is_folder(folder) ? folder : m->path;
    p->scheduler = is_folder(scheduler) ? scheduler : m->path;
    p->scheduler_promised = has_component(index, "scheduler");
    m->index = json_incref(index);
    m->component = ht_strdup(m->arena, component);
    for (size_t i = 0; i < COUNT(decoder_names); i++)
        if (has_component(index, decoder_names[i]))
            m->decoder = decoder_names[i];
done:
    json_decref(index);
    return status;
}

static ht_status find_places(ht_model *m, const char *component, places *p)
{
    const char *index = ht_sprintf(m->arena, "%s/model_index.json", m->path);
    if (!index)
        return HT_ERR_MEMORY;
    if (!exists(m->path))
        return ht_fail(HT_ERR_IO, "%s: %s", m->path, strerror(errno));
    if (!is_folder(m->path) && ends(m->path, ".safetensors")) {
        ht_status status = ht_single_file_find(m->arena, m->path, component, &p->single);
        p->component = p->scheduler = p->single.folder;
        m->decoder = component ? NULL : ht_single_file_decoder(m->arena, &p->single);
        return status;
    }
    if (!is_folder(m->path))
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: is a file, want a folder with model_index.json or config.json",
                       m->path);
    if (exists(index))
        return find_in_pipeline(m, index, component, p);
    p->component = component ? ht_sprintf(m->arena, "%s/%s", m->path, component) : m->path;
    p->scheduler = p->component;
    return p->component ? HT_OK : HT_ERR_MEMORY;
}

/* ---- configuration ---- */

/* config.json in the words of diffusers, and what came with it. */
typedef struct configuration {
    const char *path; /* of config.json, for messages */
    json_t *object;
    json_t *scheduler; /* that config.json itself describes, or NULL */
    ht_rename rename;  /* of the dialect, NULL: that of diffusers */
    const void *context;
    int levels;        /* the context of the original DDPM's names */
    ht_ldm_levels ldm; /* that of single files */
} configuration;

static ht_status read_of_single_file(const ht_single_file *single, configuration *c)
{
    c->path = single->config;
    if (!exists(c->path))
        return ht_fail(HT_ERR_UNSUPPORTED,
                       "%s: is a file, want %s beside it, the component's config.json; or a folder with "
                       "model_index.json or config.json",
                       single->weights, c->path);
    ht_status status = ht_json_read(c->path, &c->object);
    c->ldm = ht_ldm_levels_read(c->object);
    c->context = &c->ldm;
    c->rename = single->rename;
    return status;
}

static ht_status read_configuration(ht_model *m, const places *p, configuration *c)
{
    json_t *object = NULL;
    ht_status status = HT_OK;
    const char *folder = p->component;
    if (p->single.weights)
        return read_of_single_file(&p->single, c);
    c->path = ht_sprintf(m->arena, "%s/config.json", folder);
    if (!c->path)
        return HT_ERR_MEMORY;
    if (!exists(c->path))
        return ht_fail(HT_ERR_IO,
                       "%s: no config.json; want a pipeline, a component's folder, or one of the original DDPM code",
                       folder);
    status = ht_json_read(c->path, &object);
    if (!status && ht_facebook_recognizes(object)) {
        status = ht_facebook_translate(object, c->path, &c->object);
        json_decref(object);
        return status;
    }
    if (status || !ht_ddpm_recognizes(object)) {
        c->object = object;
        return status;
    }
    status = ht_ddpm_translate(object, c->path, &c->object, &c->scheduler);
    c->rename = ht_ddpm_rename;
    c->context = &c->levels;
    c->levels = (int)json_array_size(json_object_get(c->object, "block_out_channels"));
    json_decref(object);
    return status;
}

static ht_status fail_family(const char *where, const char *class_name)
{
    char known[512] = "";
    size_t used = 0;
    for (size_t i = 0; i < COUNT(families) && used < sizeof known; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", class_of(&families[i]));
    return ht_fail(HT_ERR_UNSUPPORTED, "%s: models of class %s are not supported; this version knows %s", where,
                   class_name, known);
}

static ht_status find_family(const configuration *c, const struct family_row **row)
{
    ht_json j = {.object = c->object, .where = c->path};
    ht_json_string(&j, "_class_name", NULL);
    if (j.status)
        return j.status;
    const char *class_name = ht_dit_class_name(c->object);
    if (!class_name)
        return ht_fail(HT_ERR_FORMAT,
                       "%s: _class_name is missing, and there is no `model` with `ch` as in the original DDPM code",
                       c->path);
    for (size_t i = 0; i < COUNT(families); i++)
        if (!strcmp(class_of(&families[i]), class_name)) {
            *row = &families[i];
            return HT_OK;
        }
    return fail_family(c->path, class_name);
}

/* The quantized layers of a checkpoint under today's names. */
static ht_status open_layers(ht_model *m, ht_rename rename, const void *context)
{
    ht_status status = ht_layers_read(m->arena, m->file, &m->layers);
    for (int i = 0; !status && rename && i < m->layers.n; i++) {
        ht_layer *layer = (ht_layer *)&m->layers.layer[i]; /* ours: just read */
        const char *name = ht_sprintf(m->arena, "%s.weight", layer->name);
        name = name ? rename(m->arena, name, context) : NULL;
        if (!name)
            return HT_ERR_MEMORY;
        layer->name = ht_sprintf(m->arena, "%.*s", (int)(strlen(name) - strlen(".weight")), name);
        if (!layer->name)
            return HT_ERR_MEMORY;
    }
    if (!status)
        ht_weights_set_layers(m->weights, &m->layers);
    return status;
}

/* ---- opening ---- */

static ht_status open_network(ht_model *m, const places *p, const configuration *c)
{
    const struct family_row *row = NULL;
    ht_status status = find_family(c, &row);
    if (!status)
        status = p->single.weights ? ht_safetensors_open(p->single.weights, &m->file)
                                   : ht_open_weights(m->arena, p->component, &m->file);
    if (!status)
        status = ht_weights_open(m->arena, m->file, c->rename ? c->rename : row->rename, c->context, &m->weights);
    if (!status)
        status = open_layers(m, c->rename ? c->rename : row->rename, c->context);
    if (!status)
        status = (row->denoiser ? row->denoiser->open : row->autoencoder->open)(m->arena, c->object, c->path,
                                                                                m->weights, &m->network);
    if (status)
        return status;
    m->family = row->denoiser;
    m->autoencoder = row->autoencoder;
    m->class_name = class_of(row);
    if (m->family)
        m->family->info(m->network, &m->info);
    else
        m->autoencoder->info(m->network, &m->coding);
    return HT_OK;
}

static ht_status open_scheduler(ht_model *m, const places *p, const configuration *c)
{
    json_t *object = json_incref(c->scheduler);
    const char *path = ht_sprintf(m->arena, "%s/scheduler_config.json", p->scheduler), *where = object ? c->path : path;
    ht_status status = path ? HT_OK : HT_ERR_MEMORY;
    if (!status && !object && (p->scheduler_promised || exists(path)))
        status = ht_json_read(path, &object);
    if (!status && object)
        status = ht_schedule_read(m->arena, object, where, &m->schedule);
    else if (!status && p->single.weights)
        ht_schedule_stable_diffusion(&m->schedule);
    m->has_scheduler = !status && object;
    m->scheduler = object;
    return status;
}

ht_status ht_model_open(const char *path, const char *component, ht_model **model)
{
    ht_arena *arena = NULL;
    ht_model *m = NULL;
    places p = {0};
    configuration c = {0};
    ht_status status = HT_OK;
    if (!path || !*path || !model)
        return ht_fail(HT_ERR_ARGUMENT, "a model needs the path of its folder");
    arena = ht_arena_create();
    m = arena ? ht_alloc(arena, sizeof *m) : NULL;
    if (!m || !(m->path = ht_strdup(arena, path))) {
        status = HT_ERR_MEMORY;
        goto done;
    }
    m->arena = arena;
    ht_schedule_defaults(&m->schedule);
    status = find_places(m, component, &p);
    if (!status)
        status = read_configuration(m, &p, &c);
    if (!status)
        status = open_network(m, &p, &c);
    if (!status)
        status = open_scheduler(m, &p, &c);
done:
    json_decref(c.scheduler);
    if (m)
        m->config = c.object;
    if (!status)
        *model = m;
    else if (m && m->arena)
        ht_model_close(m);
    else
        ht_arena_free(arena);
    return status;
}

void ht_model_close(ht_model *model)
{
    if (!model)
        return;
    ht_safetensors_close(model->file);
    json_decref(model->index);
    json_decref(model->config);
    json_decref(model->scheduler);
    ht_arena_free(model->arena);
}
