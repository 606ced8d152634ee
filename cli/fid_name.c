/* fid_name.c - what the statistics of a set are called: SET.NETWORK.npz, and of a model's images with what they depend
 * on, so that no setting overwrites what another gave. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/fid.h"
#include "cli/text.h"

enum { SHOWN = 8 }; /* digits of the hash in a name */

/* Options that are recorded and change no image.  A new option does, unless it is put here. */
static const char *const of_measuring[] = {"metrics",  "features",    "output", "resize",     "prompts",    "skip-bad",
                                           "kid-size", "kid-subsets", "splits", "neighbours", "metric-seed"};

/* The prompts themselves, for a file's name says nothing. */
static json_t *prompts_json(const prompt_list *prompts)
{
    json_t *list = json_array();
    for (int64_t i = 0; list && i < prompts->n; i++)
        if (json_array_append_new(list, text_json(prompts->text[i]))) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

/* All that the images depend on besides the model.  NULL: out of memory. */
static json_t *drawing_json(const fid_settings *s, const prompt_list *prompts)
{
    json_t *object = options_hashed_json(&fid_command, s);
    if (!object)
        return NULL;
    for (size_t i = 0; i < sizeof of_measuring / sizeof *of_measuring; i++)
        json_object_del(object, of_measuring[i]);
    if (json_object_set_new(object, "prompts", prompts_json(prompts)) ||
        json_object_set_new(object, "backend", json_string(s->run.backend)) ||
        json_object_set_new(object, "dtype", json_string(s->run.dtype))) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static bool drawing_key(const fid_settings *s, const prompt_list *prompts, char key[TEXT_KEY])
{
    json_t *object = drawing_json(s, prompts);
    char *text = object ? json_dumps(object, JSON_SORT_KEYS | JSON_COMPACT) : NULL;
    bool done = text && text_hash(key, (const char *const[]){text}, 1);
    free(text);
    json_decref(object);
    return done;
}

/* "-2048" if there is such a text. */
static const char *more(const char *text, char *room, size_t size)
{
    snprintf(room, size, "%s%s", text ? "-" : "", text ? text : "");
    return room;
}

int fid_statistics_name(const fid_settings *s, const prompt_list *prompts, const ht_evaluator_info *info,
                        const char *path, char name[PATH_MAX])
{
    char key[TEXT_KEY], how[96] = "", output[32], resize[32];
    int length = (int)strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    if (prompts && !drawing_key(s, prompts, key))
        return report("out of memory");
    if (prompts)
        snprintf(how, sizeof how, ".n%" PRId64 "-steps%" PRId64 "-seed%" PRIu64 "-%.*s", s->n, s->steps, s->seed, SHOWN,
                 key);
    int n = snprintf(name, PATH_MAX, "%.*s%s.%s%s%s.npz", length, path, how, info->features ? info->features : "",
                     more(s->output, output, sizeof output),
                     more(strcmp(info->resize, "none") ? info->resize : NULL, resize, sizeof resize));
    return n < PATH_MAX ? 0 : report("--save-stats: the name beside %.100s would be too long", path);
}
