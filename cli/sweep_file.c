/* sweep_file.c - reading what a sweep is: settings by the names of the command line's options, through the same tables,
 * so that whatever calibrate, quantize and sample take can be said here too. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli/fid.h"
#include "cli/sweep.h"
#include "core/json.h"

enum { IMAGES = 16 }; /* of a cell, if nothing is said */

/* A place in the file: its setting is `key`, of `owner` ("base", "cells[2]"). */
typedef struct place {
    const sweep_plan *plan;
    const char *owner;
} place;

static const char *const top_keys[] = {"name",  "sample", "metrics", "features", "resize", "reference",
                                       "error", "base",   "grid",    "cells",    NULL};

/* ---- one setting ---- */

bool sweep_takes(const option *o)
{
    static const char *const others[] = {"beside", "init", "mask", "strength", "prompt-2", "negative-2"};
    bool takes = o->name && o->record;
    for (size_t i = 0; takes && i < sizeof others / sizeof *others; i++)
        takes = strcmp(o->name, others[i]) != 0;
    return takes;
}

static const option *find_row(const command *c, const char *name, bool letters)
{
    for (const option *o = c->options; !option_is_last(o); o++)
        if (sweep_takes(o) && (!strcmp(o->name, name) || (letters && o->letter && name[0] == o->letter && !name[1])))
            return o;
    return NULL;
}

/* A JSON value in the words of the command line, in the arena; NULL if the type is wrong. */
static const char *text_of(ht_arena *arena, const option *o, const json_t *v)
{
    bool takes_text = o->type == OPTION_TEXT || o->type == OPTION_CHOICE || o->type == OPTION_SEED ||
                      o->type == OPTION_INTS || o->type == OPTION_SIZE;
    if (o->type == OPTION_FLAG || o->type == OPTION_SWITCH)
        return json_is_boolean(v) ? "" : NULL;
    if (json_is_string(v))
        return takes_text && strlen(json_string_value(v)) == json_string_length(v) ? json_string_value(v) : NULL;
    if (json_is_integer(v) && o->type != OPTION_TEXT && o->type != OPTION_CHOICE)
        return ht_sprintf(arena, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    if (json_is_real(v) && o->type == OPTION_REAL)
        return ht_sprintf(arena, "%.17g", json_real_value(v));
    return NULL;
}

static int wrong_value(const place *p, const char *key, const option *o, const json_t *value)
{
    char wanted[160];
    char *found = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    bool is_switch = o->type == OPTION_FLAG || o->type == OPTION_SWITCH;
    int code = report("%s: %s: \"%s\" is %.100s, must be %s", p->plan->file, p->owner, key, found ? found : "odd",
                      is_switch ? "true or false" : option_wanted(o, wanted, sizeof wanted));
    free(found);
    return code;
}

static int set(const place *p, const char *key, const option *o, const json_t *value, void *settings)
{
    const char *text = text_of(p->plan->arena, o, value);
    if (text && (o->type == OPTION_FLAG || o->type == OPTION_SWITCH) && json_is_false(value))
        return 0;
    return text && option_read(o, text, settings) ? 0 : wrong_value(p, key, o, value);
}

static int unknown(const place *p, const char *key)
{
    const char *names[64];
    int n = 0;
    const command *const sources[] = {&quantize_command, &calibrate_command};
    for (int i = 0; i < 2; i++)
        for (const option *o = sources[i]->options; !option_is_last(o) && n < 63; o++)
            if (o->name && o->record)
                names[n++] = o->name;
    names[n] = NULL;
    const char *meant = nearest_name(key, names);
    if (meant && strcmp(meant, key) != 0)
        return report("%s: %s: unknown key \"%s\"; did you mean \"%s\"?", p->plan->file, p->owner, key, meant);
    return report("%s: %s: unknown key \"%s\"; wanted an option of calibrate or quantize, or sample.OPTION",
                  p->plan->file, p->owner, key);
}

/* "groups", of the one command that has it; "seed", of calibrate and quantize; "sample.seed", of the one named. */
static int apply(const place *p, sweep_cell *cell, const char *key, const json_t *value)
{
    const struct {
        const char *prefix;
        const command *command;
        void *settings;
        bool bare;
    } targets[] = {{"calibrate.", &calibrate_command, &cell->calibrate, true},
                   {"quantize.", &quantize_command, &cell->quantize, true},
                   {"sample.", &sample_command, &cell->sample, false}};
    bool found = false;
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        size_t n = strlen(targets[i].prefix);
        bool named = !strncmp(key, targets[i].prefix, n);
        if (!named && !targets[i].bare)
            continue;
        const option *o = find_row(targets[i].command, named ? key + n : key, false);
        int code = o ? set(p, key, o, value, targets[i].settings) : 0;
        if (code)
            return code;
        found = found || o;
    }
    return found ? 0 : unknown(p, key);
}

/* A whole object of settings; those that name their command overrule those that do not, whatever the order. */
static int apply_all(const place *p, sweep_cell *cell, json_t *settings)
{
    const char *key;
    json_t *value;
    for (int named = 0; named < 2; named++) {
        json_object_foreach(settings, key, value)
        {
            bool is_setting = strcmp(key, "name") != 0 && strcmp(key, "float") != 0;
            int code = is_setting && (strchr(key, '.') != NULL) == named ? apply(p, cell, key, value) : 0;
            if (code)
                return code;
        }
    }
    return 0;
}

static int apply_table(const place *p, const command *c, void *settings, const json_t *object)
{
    const char *key;
    json_t *value;
    if (object && !json_is_object(object))
        return report("%s: \"%s\" must be an object", p->plan->file, p->owner);
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        const option *o = find_row(c, key, true);
        if (c == &sample_command && !strcmp(key, "prompts"))
            continue; /* read_prompts */
        int code =
            o ? set(p, key, o, value, settings)
              : report("%s: %s: unknown key \"%s\"; see halftone %s --help", p->plan->file, p->owner, key, c->name);
        if (code)
            return code;
    }
    return 0;
}

/* ---- cells ---- */

static int check_cell(const sweep_plan *plan, const sweep_cell *cell)
{
    for (const sweep_cell *c = plan->cells; c < cell; c++)
        if (!strcmp(c->name, cell->name))
            return report("%s: two cells are called \"%s\"", plan->file, cell->name);
    if (ht_calibrate_check(&cell->calibrate.options) || ht_quantize_check(&cell->quantize.options))
        return report("%s: cell \"%s\": %s", plan->file, cell->name, ht_error_message());
    if (cell->sample.total && cell->sample.total < cell->sample.first + cell->sample.n)
        return report("%s: cell \"%s\": \"sample.total\" must be at least first + number", plan->file, cell->name);
    return 0;
}

/* A new cell of base and own settings, on top of the defaults. */
static int add_cell(sweep_plan *plan, const char *owner, const char *name, json_t *own, const int *point)
{
    place p = {plan, owner};
    if (plan->n == SWEEP_MAX_CELLS)
        return report("%s: more than %d cells", plan->file, SWEEP_MAX_CELLS);
    sweep_cell *cell = &plan->cells[plan->n];
    *cell = (sweep_cell){.name = name, .is_float = json_is_true(json_object_get(own, "float"))};
    for (int i = 0; i < SWEEP_MAX_AXES; i++)
        cell->point[i] = point ? point[i] : -1;
    options_defaults(&calibrate_command, &cell->calibrate);
    options_defaults(&quantize_command, &cell->quantize);
    options_defaults(&sample_command, &cell->sample);
    cell->sample.n = IMAGES;
    json_t *merged = json_object(), *base = json_object_get(plan->json, "base");
    if (!merged || (base && json_object_update(merged, base)) || json_object_update(merged, own)) {
        json_decref(merged);
        return report("out of memory");
    }
    int code =
        apply_table(&(place){plan, "sample"}, &sample_command, &cell->sample, json_object_get(plan->json, "sample"));
    if (!code)
        code = apply_all(&p, cell, merged);
    json_decref(merged);
    if (!code)
        code = check_cell(plan, cell);
    plan->n += !code;
    return code;
}

/* A model of floats has no settings but those of its samples. */
static int check_float(const sweep_plan *plan, const char *owner, const json_t *own)
{
    const char *key;
    json_t *value, *yes = json_object_get(own, "float");
    if (yes && !json_is_boolean(yes))
        return report("%s: %s: \"float\" must be true or false", plan->file, owner);
    json_object_foreach(
        (json_t *)(uintptr_t)own, key,
        value) if (json_is_true(yes) && strcmp(key, "name") != 0 && strcmp(key, "float") != 0 &&
                   strncmp(key, "sample.", 7) !=
                       0) return report("%s: %s: \"%s\" beside \"float\": the model of floats is not quantized",
                                        plan->file, owner, key);
    return 0;
}

static int read_list(sweep_plan *plan, const json_t *list)
{
    size_t i;
    json_t *own;
    if (list && !json_is_array(list))
        return report("%s: \"cells\" must be a list of objects", plan->file);
    json_array_foreach(list, i, own)
    {
        const char *owner = ht_sprintf(plan->arena, "cells[%zu]", i);
        const char *name = json_string_value(json_object_get(own, "name"));
        if (!owner)
            return report_failure();
        if (!json_is_object(own))
            return report("%s: %s must be an object", plan->file, owner);
        if (!name || !*name || strlen(name) > 100)
            return report("%s: %s: \"name\" must be a text of 1 to 100 bytes", plan->file, owner);
        int code = check_float(plan, owner, own);
        if (!code)
            code = add_cell(plan, owner, name, own, NULL);
        if (code)
            return code;
    }
    return 0;
}

/* ---- the grid ---- */

static int read_axis(sweep_plan *plan, const char *key, const json_t *values)
{
    if (plan->n_axes == SWEEP_MAX_AXES)
        return report("%s: grid: more than %d settings", plan->file, SWEEP_MAX_AXES);
    if (!json_is_array(values) || !json_array_size(values))
        return report("%s: grid: \"%s\" must be a list of values", plan->file, key);
    sweep_axis *axis = &plan->axes[plan->n_axes++];
    *axis = (sweep_axis){.name = key, .n = (int)json_array_size(values)};
    axis->values = ht_alloc_array(plan->arena, (size_t)axis->n, sizeof *axis->values);
    for (int i = 0; axis->values && i < axis->n; i++) {
        const json_t *v = json_array_get(values, (size_t)i);
        char *dumped =
            json_is_string(v) ? NULL : json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));
        axis->values[i] = json_is_string(v) ? json_string_value(v) : ht_strdup(plan->arena, dumped ? dumped : "?");
        free(dumped);
        if (!axis->values[i])
            return report_failure();
    }
    return axis->values ? 0 : report_failure();
}

static int add_point(sweep_plan *plan, const json_t *grid, const int *point)
{
    json_t *own = json_object();
    const char *name = "";
    for (int a = 0; own && name && a < plan->n_axes; a++) {
        const sweep_axis *axis = &plan->axes[a];
        json_object_set(own, axis->name, json_array_get(json_object_get(grid, axis->name), (size_t)point[a]));
        name = ht_sprintf(plan->arena, "%s%s%s=%s", name, a ? " " : "", axis->name, axis->values[point[a]]);
    }
    int code = own && name ? add_cell(plan, "grid", name, own, point) : report("out of memory");
    json_decref(own);
    return code;
}

/* All combinations, the last setting changing fastest. */
static int read_grid(sweep_plan *plan, json_t *grid)
{
    const char *key;
    json_t *values;
    int point[SWEEP_MAX_AXES] = {0};
    if (!grid)
        return 0;
    if (!json_is_object(grid) || !json_object_size(grid))
        return report("%s: \"grid\" must be an object of lists", plan->file);
    json_object_foreach(grid, key, values)
    {
        int code = read_axis(plan, key, values);
        if (code)
            return code;
    }
    for (;;) {
        int code = add_point(plan, grid, point), a = plan->n_axes - 1;
        if (code)
            return code;
        while (a >= 0 && ++point[a] == plan->axes[a].n)
            point[a--] = 0;
        if (a < 0)
            return 0;
    }
}

/* ---- the file ---- */

static int read_metrics(sweep_plan *plan)
{
    const json_t *list = json_object_get(plan->json, "metrics");
    size_t i;
    json_t *name;
    plan->says_metrics = list;
    if (!list)
        plan->metrics = HT_METRIC_FRECHET;
    if (list && !json_is_array(list))
        return report("%s: \"metrics\" must be a list of names", plan->file);
    json_array_foreach(list, i, name)
    {
        const char *text = json_string_value(name);
        unsigned m = text ? fid_metric_named(text, strlen(text)) : 0;
        if (!m)
            return report("%s: metrics[%zu] is none of psnr, fd, sfid, kid, is, pr, ssim, distance", plan->file, i);
        plan->metrics |= m & ~(unsigned)HT_METRIC_PSNR;
    }
    return 0;
}

static int read_text(const sweep_plan *plan, const char *key, const char **text)
{
    const json_t *value = json_object_get(plan->json, key);
    if (value && (!json_is_string(value) || !json_string_length(value)))
        return report("%s: \"%s\" must be a text", plan->file, key);
    *text = value ? json_string_value(value) : NULL;
    return 0;
}

static int read_head(sweep_plan *plan)
{
    const char *key;
    json_t *value, *base = json_object_get(plan->json, "base");
    json_object_foreach(plan->json, key, value)
    {
        const char *const *known = top_keys;
        while (*known && strcmp(*known, key) != 0)
            known++;
        const char *meant = *known ? NULL : nearest_name(key, top_keys);
        if (!*known)
            return report("%s: unknown key \"%s\"%s%s%s", plan->file, key, meant ? "; did you mean \"" : "",
                          meant ? meant : "", meant ? "\"?" : "");
    }
    if (base && !json_is_object(base))
        return report("%s: \"base\" must be an object", plan->file);
    if (read_text(plan, "name", &plan->name) || read_text(plan, "features", &plan->features) ||
        read_text(plan, "resize", &plan->resize) || read_text(plan, "reference", &plan->reference) ||
        read_metrics(plan))
        return EXIT_FAILURE;
    if (plan->resize && strcmp(plan->resize, "bilinear") != 0 && strcmp(plan->resize, "tf1") != 0 &&
        strcmp(plan->resize, "bicubic") != 0)
        return report("%s: \"resize\" must be bilinear, tf1 or bicubic", plan->file);
    options_defaults(&calibrate_command, &plan->error);
    plan->error.options.per_step = 4;
    plan->error.options.seed = 9999;
    return apply_table(&(place){plan, "error"}, &calibrate_command, &plan->error, json_object_get(plan->json, "error"));
}

/* Of all cells: their pictures could not be compared otherwise. */
static int read_prompts(sweep_plan *plan)
{
    const json_t *value = json_object_get(json_object_get(plan->json, "sample"), "prompts");
    if (value && (!json_is_string(value) || !json_string_length(value)))
        return report("%s: sample: \"prompts\" must be the name of a file with a prompt a line", plan->file);
    return value ? prompts_read(&plan->prompts, &(option_texts){0}, json_string_value(value)) : 0;
}

int sweep_plan_read(const char *path, sweep_plan *plan)
{
    *plan = (sweep_plan){.file = path};
    plan->arena = ht_arena_create();
    plan->cells = calloc(SWEEP_MAX_CELLS, sizeof *plan->cells); /* pages that are never written take nothing */
    if (!plan->arena || !plan->cells)
        return report("out of memory");
    if (ht_json_read(path, &plan->json))
        return report_failure();
    int code = read_head(plan);
    if (!code)
        code = read_prompts(plan);
    if (!code)
        code = read_list(plan, json_object_get(plan->json, "cells"));
    if (!code)
        code = read_grid(plan, json_object_get(plan->json, "grid"));
    if (!code && !plan->n)
        code = report("%s: no cells: wanted \"cells\", \"grid\", or both", path);
    return code;
}

void sweep_plan_close(sweep_plan *plan)
{
    json_decref(plan->json);
    prompts_free(&plan->prompts);
    free(plan->cells);
    ht_arena_free(plan->arena);
    *plan = (sweep_plan){0};
}

/* ---- keys ---- */

static bool hash_options(char key[SWEEP_KEY], const char *of, const command *c, const void *settings)
{
    json_t *object = options_hashed_json(c, settings);
    char *text = object ? json_dumps(object, JSON_SORT_KEYS | JSON_COMPACT) : NULL;
    bool done = text_hash(key, (const char *const[]){of, c->name, text}, 3);
    free(text);
    json_decref(object);
    return done;
}

/* Of the model, or of the model and what it draws. */
static const char *drawn_identity(const sweep_plan *plan, const char *identity)
{
    char key[SWEEP_KEY];
    if (!plan->prompts.n)
        return identity;
    return text_hash(key, plan->prompts.text, (int)plan->prompts.n) ? ht_sprintf(plan->arena, "%s %s", identity, key)
                                                                    : NULL;
}

static bool cell_keys(const sweep_plan *plan, sweep_cell *c, const char *identity, const char *extra)
{
    char metrics[16];
    snprintf(metrics, sizeof metrics, "%x", plan->metrics);
    const char *of = drawn_identity(plan, identity);
    bool done = of && hash_options(c->drawing, of, &sample_command, &c->sample);
    if (done && !c->is_float)
        done = hash_options(c->calibration, identity, &calibrate_command, &c->calibrate) &&
               hash_options(c->quantization, c->calibration, &quantize_command, &c->quantize);
    return done &&
           text_hash(c->id, (const char *const[]){c->quantization, c->drawing, plan->error_key, metrics, extra}, 5);
}

int sweep_plan_keys(sweep_plan *plan, const char *identity, const char *extra)
{
    bool done = hash_options(plan->error_key, identity, &calibrate_command, &plan->error);
    for (int i = 0; done && i < plan->n; i++)
        done = cell_keys(plan, &plan->cells[i], identity, extra);
    return done ? 0 : report("out of memory");
}
