/* features.c - opening a feature network, and running it over images in batches.
 *
 * What a network takes is normalized, (x - mean) / std of x in [0,1].  Of 8-bit pixels that is a table of 256 numbers a
 * colour, made in float32 as PyTorch rounds it: x / 255, then - mean, then / std. */
#include "eval/features.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "core/json.h"
#include "core/pixel.h"
#include "cpu/backend.h"
#include "eval/network.h"

enum { BATCH = 16, COLOURS = 3, LEVELS = 256 };

static const ht_network *const networks[] = {&ht_resnet_cifar, &ht_inception_v3};

struct ht_features {
    ht_arena *arena; /* of all but the program and its graph */
    const char *name;
    ht_safetensors *file;
    ht_weights *weights;
    const ht_network *network;
    void *model;
    ht_network_info info;
    float table[LEVELS][COLOURS];
    float *batch;   /* [BATCH,h,w,3] */
    float *vectors; /* [BATCH,dim] */
    int dim;        /* of the output for features */

    ht_arena *program_arena;
    ht_graph *graph;
    ht_program *program;                         /* NULL: to be compiled */
    const ht_value *outputs[HT_NETWORK_OUTPUTS]; /* those that are wanted */
    unsigned wanted;
    int threads; /* of the program, as they were asked for */
    const char *isa;
};

/* ---- opening ---- */

/* The one file in a folder that ends in .safetensors. */
static ht_status find_weights(ht_arena *arena, const char *folder, const char **file)
{
    static const char ending[] = ".safetensors";
    DIR *dir = opendir(folder);
    if (!dir)
        return ht_fail(HT_ERR_IO, "%s: %s; wanted the folder of a feature network", folder, strerror(errno));
    int found = 0;
    *file = NULL;
    for (const struct dirent *e; (e = readdir(dir));) {
        size_t n = strlen(e->d_name), m = sizeof ending - 1;
        if (n <= m || strcmp(e->d_name + n - m, ending) != 0)
            continue;
        found++;
        *file = ht_strdup(arena, e->d_name);
    }
    closedir(dir);
    if (found != 1)
        return ht_fail(HT_ERR_IO, "%s: %d files end in %s; wanted one, the network's weights", folder, found, ending);
    return *file ? HT_OK : HT_ERR_MEMORY;
}

/* "a/b/name.safetensors" -> "name" */
static const char *name_of(ht_arena *arena, const char *file)
{
    const char *slash = strrchr(file, '/'), *base = slash ? slash + 1 : file;
    size_t n = strlen(base), m = strlen(".safetensors");
    n -= n > m && !strcmp(base + n - m, ".safetensors") ? m : 0;
    return ht_sprintf(arena, "%.*s", (int)n, base);
}

static ht_status open_file(ht_features *f, const char *path)
{
    f->name = name_of(f->arena, path);
    return f->name ? ht_safetensors_open(path, &f->file) : HT_ERR_MEMORY;
}

/* The network that a configuration names, or, without one, whose tensor is there. */
static ht_status choose_network(ht_features *f, const json_t *config, const char *where)
{
    enum { NETWORKS = sizeof networks / sizeof *networks };
    const char *names[NETWORKS + 1] = {NULL};
    int which = -1;
    for (int i = 0; i < NETWORKS; i++) {
        names[i] = networks[i]->architecture;
        if (!config && networks[i]->tensor && ht_safetensors_find(f->file, networks[i]->tensor))
            which = i;
    }
    if (config) {
        ht_json j = {.object = config, .where = where};
        which = ht_json_choice(&j, "architecture", -1, names);
        if (j.status)
            return j.status;
        if (which < 0)
            return ht_fail(HT_ERR_FORMAT, "%s: has no architecture; is this the folder of a feature network?", where);
    }
    if (which < 0)
        return ht_fail(HT_ERR_FORMAT,
                       "%s: no feature network that this version knows; a file alone must be FID's InceptionV3 (%s)",
                       where, ht_inception_v3.tensor);
    f->network = networks[which];
    return HT_OK;
}

static ht_status open_network(ht_features *f, const json_t *config, const char *where)
{
    ht_status status = choose_network(f, config, where);
    if (!status)
        status = ht_weights_open(f->arena, f->file, f->network->rename, NULL, &f->weights);
    return status ? status : f->network->open(f->arena, config, where, f->weights, &f->model);
}

static ht_status prepare(ht_features *f)
{
    f->network->info(f->model, &f->info);
    for (int level = 0; level < LEVELS; level++)
        for (int c = 0; c < COLOURS; c++)
            f->table[level][c] = ((float)level / 255.0f - (float)f->info.mean[c]) / (float)f->info.std[c];
    size_t pixels = (size_t)f->info.height * (size_t)f->info.width;
    f->batch = ht_alloc_array(f->arena, pixels, sizeof(float[BATCH][COLOURS]));
    f->dim = f->info.output[f->info.use[HT_USE_FEATURES]].dim;
    f->vectors = ht_alloc_array(f->arena, (size_t)f->dim, sizeof(float[BATCH]));
    return f->batch && f->vectors ? HT_OK : HT_ERR_MEMORY;
}

static ht_status open_folder(ht_features *f, const char *folder)
{
    json_t *config = NULL;
    const char *file = NULL, *where = ht_sprintf(f->arena, "%s/config.json", folder), *path = NULL;
    ht_status status = where ? find_weights(f->arena, folder, &file) : HT_ERR_MEMORY;
    if (!status)
        status = (path = ht_sprintf(f->arena, "%s/%s", folder, file)) ? open_file(f, path) : HT_ERR_MEMORY;
    if (!status)
        status = ht_json_read(where, &config);
    if (!status)
        status = open_network(f, config, where);
    json_decref(config);
    return status;
}

ht_status ht_features_open(const char *path, ht_features **out)
{
    ht_arena *arena = ht_arena_create();
    ht_features *f = arena ? ht_alloc(arena, sizeof *f) : NULL;
    struct stat kind;
    if (!f) {
        ht_arena_free(arena);
        return HT_ERR_MEMORY;
    }
    f->arena = arena;
    bool is_file = !stat(path, &kind) && !S_ISDIR(kind.st_mode);
    ht_status status = is_file ? open_file(f, path) : open_folder(f, path);
    if (!status && is_file)
        status = open_network(f, NULL, path);
    if (!status)
        status = prepare(f);
    if (status)
        ht_features_close(f);
    else
        *out = f;
    return status;
}

static void close_program(ht_features *f)
{
    ht_cpu_backend.close(f->program); /* NULL is allowed */
    ht_arena_free(f->program_arena);
    f->program = NULL;
    f->program_arena = NULL;
}

void ht_features_close(ht_features *f)
{
    if (!f)
        return;
    close_program(f);
    ht_safetensors_close(f->file);
    ht_arena_free(f->arena);
}

void ht_features_get_info(const ht_features *f, ht_features_info *info)
{
    *info = (ht_features_info){.name = f->name,
                               .dim = f->dim,
                               .network = &f->info,
                               .height = f->info.height,
                               .width = f->info.width,
                               .parameters = ht_weights_parameters(f->weights)};
}

/* ---- running ---- */

/* Names and keeps the outputs that are wanted; the last of them is the graph's. */
static void choose_outputs(ht_features *f, unsigned wanted, ht_value *const *made)
{
    const ht_value *last = NULL;
    for (int i = f->info.outputs; i-- > 0;) {
        if (!(wanted >> i & 1) || !made[i])
            continue;
        f->outputs[i] = ht_name(f->graph, made[i], "%s", f->info.output[i].name);
        if (last)
            ht_tap(f->graph, f->info.output[i].name);
        else
            ht_output_value(f->graph, made[i], f->info.output[i].name);
        last = made[i];
    }
}

static ht_status compile(ht_features *f, const ht_features_options *o, unsigned wanted)
{
    ht_backend_options options = {.threads = o->threads, .isa = o->isa};
    ht_value *made[HT_NETWORK_OUTPUTS] = {NULL};
    close_program(f);
    f->program_arena = ht_arena_create();
    f->graph = f->program_arena ? ht_graph_create(f->program_arena) : NULL;
    if (!f->graph)
        return HT_ERR_MEMORY;
    f->network->build(f->model, f->graph, BATCH, wanted, made);
    choose_outputs(f, wanted, made);
    ht_status status = ht_graph_finish(f->graph, true);
    if (!status && o->isa && !(options.isa = ht_strdup(f->program_arena, o->isa)))
        status = HT_ERR_MEMORY;
    if (!status)
        status = ht_cpu_backend.compile(f->graph, &options, &f->program);
    f->threads = o->threads;
    f->isa = options.isa;
    f->wanted = wanted;
    return status ? status : ht_cpu_backend.run(f->program, HT_STAGE_ONCE, BATCH, NULL);
}

static bool same_text(const char *a, const char *b)
{
    return a && b ? !strcmp(a, b) : a == b;
}

static ht_status ready(ht_features *f, int64_t n, const ht_features_options *o, unsigned wanted)
{
    if (n < 0)
        return ht_fail(HT_ERR_ARGUMENT, "features of %lld images; wanted 0 or more", (long long)n);
    if (o->threads < 0 || o->threads > 1024)
        return ht_fail(HT_ERR_ARGUMENT, "threads %d is out of range; wanted 0 (all) to 1024", o->threads);
    if (f->program && f->threads == o->threads && same_text(f->isa, o->isa) && f->wanted == wanted)
        return HT_OK;
    return compile(f, o, wanted);
}

/* The output that the functions with a single one give. */
static unsigned features_alone(const ht_features *f)
{
    return 1u << f->info.use[HT_USE_FEATURES];
}

/* Images that come in one of two ways; the other is NULL. */
typedef struct source {
    const float *values;
    const uint8_t *pixels;
    bool unrounded;
} source;

/* Value i of a source, normalized. */
static float normalized(const ht_features *f, const source *s, int64_t i)
{
    int c = (int)(i % COLOURS);
    if (s->pixels)
        return f->table[s->pixels[i]][c];
    if (!s->unrounded)
        return f->table[ht_pixel_of(s->values[i])][c];
    return (s->values[i] / 2 + 0.5f - (float)f->info.mean[c]) / (float)f->info.std[c];
}

/* n <= BATCH inputs. */
static ht_status run_inputs(ht_features *f, int n, const float *inputs)
{
    ht_status status = ht_cpu_backend.upload(f->program, ht_graph_input(f->graph, "images"), inputs, n);
    return status ? status : ht_cpu_backend.run(f->program, HT_STAGE_STEP, n, NULL);
}

/* n <= BATCH images, from number `first` on. */
static ht_status run_batch(ht_features *f, const source *s, int64_t first, int n, float *out)
{
    int64_t values = (int64_t)f->info.height * f->info.width * COLOURS;
    for (int64_t i = 0; i < n * values; i++)
        f->batch[i] = normalized(f, s, first * values + i);
    ht_status status = run_inputs(f, n, f->batch);
    return status ? status : ht_cpu_backend.download(f->program, ht_graph_output(f->graph), out, n);
}

ht_status ht_features_input(const ht_features *f, ht_resize resize, const ht_pixels *picture, float *out)
{
    const ht_network_info *info = &f->info;
    size_t pixels = (size_t)info->height * (size_t)info->width;
    bool as_is = picture->height == info->height && picture->width == info->width;
    bool from_128 = info->mean_128 > 0 && (resize == HT_RESIZE_TF1 || resize == HT_RESIZE_BICUBIC);
    if (as_is && !from_128) { /* none of the ways changes it */
        for (size_t i = 0; i < pixels * COLOURS; i++)
            out[i] = f->table[picture->data[i]][i % COLOURS];
        return HT_OK;
    }
    ht_status status = ht_resize_pixels(resize, picture, info->height, info->width, out);
    for (size_t i = 0; !status && i < pixels * COLOURS; i++)
        out[i] = from_128 ? (out[i] - (float)info->mean_128) / (float)info->mean_128
                          : (out[i] / 255.0f - (float)info->mean[i % COLOURS]) / (float)info->std[i % COLOURS];
    return status;
}

ht_status ht_features_run_outputs(ht_features *f, int64_t n, const float *inputs, const ht_features_options *options,
                                  unsigned wanted, float *const *out)
{
    int64_t values = (int64_t)f->info.height * f->info.width * COLOURS;
    ht_status status = ready(f, n, options ? options : &(ht_features_options){0}, wanted);
    for (int64_t at = 0; !status && at < n; at += BATCH) {
        int some = n - at < BATCH ? (int)(n - at) : BATCH;
        status = run_inputs(f, some, inputs + at * values);
        for (int i = 0; !status && i < f->info.outputs; i++)
            if (wanted >> i & 1)
                status = ht_cpu_backend.download(f->program, f->outputs[i], out[i] + at * f->info.output[i].dim, some);
    }
    return status;
}

/* Of n images: into out [n,dim], or, if that is NULL, into statistics. */
static ht_status run(ht_features *f, int64_t n, const source *s, float *out, ht_statistics *accumulate)
{
    ht_status status = HT_OK;
    for (int64_t i = 0; !status && i < n; i += BATCH) {
        int some = n - i < BATCH ? (int)(n - i) : BATCH;
        status = run_batch(f, s, i, some, out ? out + i * f->dim : f->vectors);
        if (!status && !out)
            status = ht_statistics_add(accumulate, some, f->vectors);
    }
    return status;
}

static const ht_features_options defaults;

ht_status ht_features_run(ht_features *f, int64_t n, const float *images, const ht_features_options *options,
                          float *out)
{
    const ht_features_options *o = options ? options : &defaults;
    ht_status status = ready(f, n, o, features_alone(f));
    return status ? status : run(f, n, &(source){.values = images, .unrounded = o->unrounded}, out, NULL);
}

ht_status ht_features_run_pixels(ht_features *f, int64_t n, const uint8_t *pixels, const ht_features_options *options,
                                 float *out)
{
    ht_status status = ready(f, n, options ? options : &defaults, features_alone(f));
    return status ? status : run(f, n, &(source){.pixels = pixels}, out, NULL);
}

static ht_status run_statistics(ht_features *f, int64_t n, const source *s, int threads, ht_statistics *accumulate)
{
    if (ht_statistics_dim(accumulate) != f->dim)
        return ht_fail(HT_ERR_SHAPE, "%s gives %d features an image, the statistics are of %d", f->name, f->dim,
                       ht_statistics_dim(accumulate));
    ht_status status = ready(f, n, &(ht_features_options){.threads = threads}, features_alone(f));
    return status ? status : run(f, n, s, NULL, accumulate);
}

ht_status ht_features_statistics(ht_features *f, int64_t n, const float *images, int threads, ht_statistics *accumulate)
{
    return run_statistics(f, n, &(source){.values = images}, threads, accumulate);
}

ht_status ht_features_statistics_pixels(ht_features *f, int64_t n, const uint8_t *pixels, int threads,
                                        ht_statistics *accumulate)
{
    return run_statistics(f, n, &(source){.pixels = pixels}, threads, accumulate);
}
