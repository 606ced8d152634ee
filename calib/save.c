/* save.c - a model folder in the layout of diffusers, written beside its place and renamed when it is whole.
 *
 * While it is made its place is taken by an empty folder with a lock on it (flock): so two processes cannot work for
 * hours at one place, and what a killed one leaves is an empty folder, which the next one takes. */
#include "calib/save.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/copy.h"
#include "core/file.h"
#include "quant/file.h"

enum { MAX_PATH = 4096, MAX_DEPTH = 20 };

static bool is_empty_folder(const char *path)
{
    DIR *dir = opendir(path);
    int entries = 0;
    if (!dir)
        return false;
    while (entries < 3 && readdir(dir))
        entries++;
    closedir(dir);
    return entries < 3; /* . and .. */
}

/* Permissions alone do not tell about read-only and virtual file systems: make the folder that will be renamed, and
 * remove it. */
static ht_status try_folder(const char *path)
{
    char folder[MAX_PATH + 16];
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    snprintf(folder, sizeof folder, "%.*s.XXXXXX", (int)n, path);
    if (!mkdtemp(folder))
        return ht_fail(HT_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
    rmdir(folder);
    return HT_OK;
}

static ht_status check_place(const char *path)
{
    struct stat st;
    char parent[MAX_PATH];
    if (!path || !*path || strlen(path) >= sizeof parent - 16)
        return ht_fail(HT_ERR_ARGUMENT, "a quantized model needs the path of a folder to write");
    if (!lstat(path, &st))
        return S_ISDIR(st.st_mode) && is_empty_folder(path)
                   ? HT_OK
                   : ht_fail(HT_ERR_ARGUMENT, "%s: exists; want the name of a new folder", path);
    snprintf(parent, sizeof parent, "%s", path);
    for (size_t n = strlen(parent); n > 1 && parent[n - 1] == '/'; n--)
        parent[n - 1] = '\0';
    char *slash = strrchr(parent, '/');
    if (slash == parent)
        parent[1] = '\0';
    else if (slash)
        *slash = '\0';
    else
        strcpy(parent, ".");
    if (stat(parent, &st) || !S_ISDIR(st.st_mode))
        return ht_fail(HT_ERR_IO, "%s: %s is no folder to write into", path, parent);
    return HT_OK;
}

/* The lock is of a folder that may have been replaced before it was had. */
static bool is_still_there(const char *path, int fd)
{
    struct stat held, now;
    return !fstat(fd, &held) && !stat(path, &now) && held.st_ino == now.st_ino && held.st_dev == now.st_dev;
}

ht_status ht_save_claim_folder(const char *path, ht_save_claim *claim)
{
    *claim = (ht_save_claim){.lock = -1};
    ht_status status = check_place(path);
    if (status)
        return status;
    claim->made = !mkdir(path, 0777);
    if (!claim->made && errno != EEXIST)
        return ht_fail(HT_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
    claim->lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (claim->lock < 0) {
        status = ht_fail(HT_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
    } else if ((flock(claim->lock, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) || !is_still_there(path, claim->lock)) {
        status = ht_fail(HT_ERR_ARGUMENT, "%s: another process is making a model there; want another name", path);
        claim->made = false; /* who has it removes it */
    } else {
        status = try_folder(path);
    }
    if (status)
        ht_save_release(claim, path);
    return status;
}

void ht_save_release(ht_save_claim *claim, const char *path)
{
    if (claim->made)
        rmdir(path); /* does nothing to one that has become a model */
    if (claim->lock >= 0)
        close(claim->lock);
    *claim = (ht_save_claim){.lock = -1};
}

/* ---- parts ---- */

static ht_status write_json(const char *path, const json_t *object)
{
    ht_output *output = NULL;
    char *text = object ? json_dumps(object, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(9)) : NULL;
    ht_status status = text ? ht_output_open(path, &output) : ht_fail(HT_ERR_MEMORY, "out of memory for %s", path);
    if (!status) {
        fprintf(ht_output_stream(output), "%s\n", text);
        status = ht_output_commit(output);
    }
    free(text);
    return status;
}

/* What is no weight of a quantized layer, and then the layers. */
static ht_status write_weights(ht_arena *arena, const ht_model *model, const ht_layers *layers, const char *path)
{
    size_t n = ht_weights_count(model->weights), used = 0, more = 0;
    ht_tensor *tensors = ht_alloc_array(arena, n + HT_LAYER_TENSORS * (size_t)layers->n, sizeof *tensors);
    const char *list = NULL;
    if (!tensors)
        return HT_ERR_MEMORY;
    for (size_t i = 0; i < n; i++) {
        const ht_tensor *t = ht_weights_at(model->weights, i);
        if (!ht_layers_of_weight(layers, t->name))
            tensors[used++] = *t;
    }
    ht_status status = ht_layers_write(arena, layers, tensors + used, &more, &list);
    ht_metadata metadata[] = {{"format", "pt"}, {"_quantization_metadata", list}};
    return status ? status : ht_safetensors_write(path, tensors, used + more, metadata, 2);
}

static ht_status write_component(ht_arena *arena, const ht_model *model, const ht_layers *layers, const json_t *how,
                                 const char *folder)
{
    char *weights = ht_sprintf(arena, "%s/diffusion_pytorch_model.safetensors", folder);
    char *path = ht_sprintf(arena, "%s/config.json", folder);
    json_t *config = json_copy(model->config);
    ht_status status = HT_ERR_MEMORY;
    if (weights && path && config && !json_object_set(config, "quantization_config", (json_t *)(uintptr_t)how))
        status = write_json(path, config);
    json_decref(config);
    return status ? status : write_weights(arena, model, layers, weights);
}

static ht_status make_folder(const char *path)
{
    return mkdir(path, 0777) ? ht_fail(HT_ERR_IO, "%s: %s", path, strerror(errno)) : HT_OK;
}

/* ---- what a pipeline has besides ---- */

static bool is_same(const char *a, const char *b)
{
    struct stat x, y;
    return !stat(a, &x) && !stat(b, &y) && x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}

/* Whether an entry of the pipeline's folder is written anew: the denoiser, which may lie beside the index, the
 * scheduler, the index. */
static bool is_written(const ht_model *model, const char *name)
{
    static const char weights[] = "diffusion_pytorch_model";
    return !strcmp(name, model->component) || (model->scheduler && !strcmp(name, "scheduler")) ||
           !strcmp(name, "model_index.json") || !strcmp(name, "config.json") ||
           !strcmp(name, "scheduler_config.json") || !strncmp(name, weights, sizeof weights - 1);
}

/* Everything else of the pipeline: text encoders, decoders, licences. */
static ht_status keep_rest(const ht_model *model, const char *folder, const char *place)
{
    char from[MAX_PATH + 256], to[MAX_PATH + 256];
    ht_status status = HT_OK;
    DIR *dir = opendir(model->path);
    if (!dir)
        return ht_fail(HT_ERR_IO, "%s: %s", model->path, strerror(errno));
    for (struct dirent *e; !status && (e = readdir(dir));) {
        if (e->d_name[0] == '.' || is_written(model, e->d_name))
            continue;
        int n = snprintf(from, sizeof from, "%s/%s", model->path, e->d_name),
            m = snprintf(to, sizeof to, "%s/%s", folder, e->d_name);
        if (n >= (int)sizeof from || m >= (int)sizeof to)
            status = ht_fail(HT_ERR_IO, "%s/%s: the path is too long", model->path, e->d_name);
        else if (!is_same(from, folder) && !is_same(from, place)) /* a model may be made inside its source */
            status = ht_link_tree(from, to);
    }
    closedir(dir);
    return status;
}

static ht_status write_pipeline(ht_arena *arena, const ht_model *model, const ht_layers *layers, const json_t *how,
                                const char *folder)
{
    char *index = ht_sprintf(arena, "%s/model_index.json", folder),
         *scheduler = ht_sprintf(arena, "%s/scheduler", folder);
    char *component = ht_sprintf(arena, "%s/%s", folder, model->component);
    char *settings = ht_sprintf(arena, "%s/scheduler/scheduler_config.json", folder);
    if (!index || !scheduler || !component || !settings)
        return HT_ERR_MEMORY;
    ht_status status = write_json(index, model->index);
    if (!status)
        status = make_folder(component);
    if (!status && model->scheduler)
        status = make_folder(scheduler);
    if (!status && model->scheduler)
        status = write_json(settings, model->scheduler);
    return status ? status : write_component(arena, model, layers, how, component);
}

static ht_status write_folder(ht_arena *arena, const ht_model *model, const ht_layers *layers, const json_t *how,
                              const char *folder)
{
    if (model->index)
        return write_pipeline(arena, model, layers, how, folder);
    char *settings = ht_sprintf(arena, "%s/scheduler_config.json", folder);
    ht_status status = settings ? HT_OK : HT_ERR_MEMORY;
    if (!status && model->scheduler)
        status = write_json(settings, model->scheduler);
    return status ? status : write_component(arena, model, layers, how, folder);
}

/* ---- the whole ---- */

/* Of a folder that this file made. */
static void remove_folder(const char *path, int depth)
{
    DIR *dir = opendir(path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char name[4352];
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        int n = snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        if (n < (int)sizeof name && unlink(name) && depth)
            remove_folder(name, depth - 1);
    }
    if (dir)
        closedir(dir);
    rmdir(path);
}

ht_status ht_save_quantized(const ht_model *model, const ht_layers *layers, const json_t *how, const char *path)
{
    ht_arena *arena = ht_arena_create();
    ht_status status = arena ? check_place(path) : HT_ERR_MEMORY;
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    char *temporary = status ? NULL : ht_sprintf(arena, "%.*s.XXXXXX", (int)n, path);
    if (!status && !temporary)
        status = HT_ERR_MEMORY;
    if (!status && !mkdtemp(temporary)) {
        status = ht_fail(HT_ERR_IO, "%s: %s", temporary, strerror(errno));
        temporary = NULL;
    }
    if (!status && chmod(temporary, 0755))
        status = ht_fail(HT_ERR_IO, "%s: %s", temporary, strerror(errno));
    if (!status)
        status = write_folder(arena, model, layers, how, temporary);
    if (!status && model->index)
        status = keep_rest(model, temporary, path);
    if (!status && rename(temporary, path))
        status = ht_fail(HT_ERR_IO, "%s: %s", path, strerror(errno));
    if (status && temporary)
        remove_folder(temporary, MAX_DEPTH);
    ht_arena_free(arena);
    return status;
}
