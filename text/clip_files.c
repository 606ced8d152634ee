/* clip_files.c - where a CLIP tokenizer comes from: tokenizer.json, or vocab.json and merges.txt, with
 * tokenizer_config.json and special_tokens_map.json beside them.
 *
 * Traps:
 * - tokenizer.json says how text is cleaned and cut.  Only what CLIP's says is known here, in the two ways it is
 * written.
 * - Its merges are "a b" in older files and ["a", "b"] in newer ones; special tokens may stand in added_tokens alone.
 */
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "text/clip_private.h"

/* ---- tokenizer.json ---- */

static const json_t *path_in(const json_t *j, const char *a, size_t i, const char *b)
{
    return json_object_get(json_array_get(json_object_get(j, a), i), b);
}

static bool says(const json_t *value, const char *wanted)
{
    return json_is_string(value) && !strcmp(json_string_value(value), wanted);
}

/* The only steps that this version knows are CLIP's. */
static ht_status check_steps(const json_t *root, const char *where)
{
    static const char words[] = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";
    static const char with_specials[] = "<\\|startoftext\\|>|<\\|endoftext\\|>|";
    const json_t *normalizer = json_object_get(root, "normalizer"), *split = json_object_get(root, "pre_tokenizer");
    const char *regex = json_string_value(json_object_get(path_in(split, "pretokenizers", 0, "pattern"), "Regex"));
    size_t skip = sizeof with_specials - 1;
    if (!says(path_in(normalizer, "normalizers", 0, "type"), "NFC") ||
        !says(path_in(normalizer, "normalizers", 1, "type"), "Replace") ||
        !says(path_in(normalizer, "normalizers", 2, "type"), "Lowercase") ||
        json_array_size(json_object_get(normalizer, "normalizers")) != 3)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: normalizer is not CLIP's, which is NFC, Replace, Lowercase", where);
    if (regex && !strncmp(regex, with_specials, skip))
        regex += skip;
    if (!regex || strcmp(regex, words) || !says(path_in(split, "pretokenizers", 1, "type"), "ByteLevel") ||
        json_array_size(json_object_get(split, "pretokenizers")) != 2)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: pre_tokenizer is not CLIP's, which is Split by %s, ByteLevel", where,
                       words);
    return HT_OK;
}

static ht_status check_model(const json_t *model, const char *where)
{
    const json_t *prefix = json_object_get(model, "continuing_subword_prefix");
    if (!says(json_object_get(model, "type"), "BPE") ||
        !says(json_object_get(model, "end_of_word_suffix"), HT_CLIP_WORD_END))
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: model must be of type BPE with the end_of_word_suffix %s", where,
                       HT_CLIP_WORD_END);
    if ((prefix && !json_is_null(prefix) && !says(prefix, "")) || json_is_true(json_object_get(model, "fuse_unk")) ||
        json_is_true(json_object_get(model, "byte_fallback")) || json_is_true(json_object_get(model, "ignore_merges")))
        return ht_fail(HT_ERR_UNSUPPORTED,
                       "%s: model has a continuing_subword_prefix, fuse_unk, byte_fallback or ignore_merges, which "
                       "CLIP's has not",
                       where);
    if (!json_is_object(json_object_get(model, "vocab")) || !json_is_array(json_object_get(model, "merges")))
        return ht_fail(HT_ERR_FORMAT, "%s: model has no vocab and merges", where);
    return HT_OK;
}

/* Added tokens that the vocabulary lacks. */
static ht_status put_added(ht_clip_loader *l, const json_t *added)
{
    size_t i;
    json_t *entry;
    json_array_foreach(added, i, entry)
    {
        const char *content = json_string_value(json_object_get(entry, "content"));
        json_t *id = json_object_get(entry, "id");
        if (!content || !json_is_integer(id))
            return ht_fail(HT_ERR_FORMAT, "%s: added_tokens %zu has no content and id", l->where, i);
        if (!json_object_get(l->vocab, content) && json_object_set(l->vocab, content, id))
            return ht_fail(HT_ERR_MEMORY, "out of memory for a vocabulary");
    }
    return HT_OK;
}

static ht_status read_tokenizer_json(ht_clip_loader *l, const json_t *root)
{
    const json_t *model = json_object_get(root, "model");
    ht_status status = check_model(model, l->where);
    if (!status)
        status = check_steps(root, l->where);
    if (status)
        return status;
    l->vocab = json_object_get(model, "vocab");
    status = put_added(l, json_object_get(root, "added_tokens"));
    if (!status)
        status = ht_clip_read_vocabulary(l);
    if (!status)
        status = ht_clip_read_settings(l);
    return status ? status : ht_clip_read_merges_list(l, json_object_get(model, "merges"));
}

/* ---- opening ---- */

static ht_status create(ht_clip_loader *l)
{
    ht_arena *arena = ht_arena_create();
    l->t = arena ? ht_alloc(arena, sizeof *l->t) : NULL;
    if (!l->t) {
        ht_arena_free(arena);
        return HT_ERR_MEMORY;
    }
    l->t->arena = arena;
    return HT_OK;
}

/* root: of vocab.json, or of tokenizer.json if merges is NULL. */
static ht_status make(ht_clip_loader *l, json_t *root, const char *merges, size_t merges_size, ht_clip_tokenizer **out)
{
    ht_status status = create(l);
    if (status)
        return status;
    if (merges) {
        l->vocab = root;
        status = ht_clip_read_vocabulary(l);
        if (!status)
            status = ht_clip_read_settings(l);
        if (!status)
            status = ht_clip_read_merges(l, merges, merges_size);
    } else {
        status = read_tokenizer_json(l, root);
    }
    if (!status)
        ht_clip_read_bytes(l);
    if (status)
        ht_clip_tokenizer_close(l->t);
    else
        *out = l->t;
    return status;
}

ht_status ht_clip_tokenizer_parse(const ht_clip_files *f, ht_clip_tokenizer **out)
{
    json_t *vocab = NULL, *config = NULL;
    ht_status status = ht_json_parse(f->vocab, f->vocab_size, "vocabulary", &vocab);
    if (!status && f->config)
        status = ht_json_parse(f->config, f->config_size, "tokenizer_config.json", &config);
    if (!status) {
        ht_clip_loader l = {.settings = {config}, .where = "vocabulary", .merge_where = "merges, line"};
        status = make(&l, vocab, f->merges, f->merges_size, out);
    }
    json_decref(config);
    json_decref(vocab);
    return status;
}

/* The files of a folder, those that are there. */
typedef struct folder {
    ht_arena *arena;
    const char *path;
    json_t *root, *settings[2];
    ht_mapping merges;
    const char *root_path, *merges_path;
} folder;

static const char *file_in(const folder *f, const char *name)
{
    return ht_sprintf(f->arena, "%s/%s", f->path, name);
}

static ht_status read_if_there(const folder *f, const char *name, json_t **out)
{
    const char *path = file_in(f, name);
    if (!path)
        return HT_ERR_MEMORY;
    return access(path, F_OK) ? HT_OK : ht_json_read(path, out);
}

static ht_status read_folder(folder *f)
{
    ht_status status = read_if_there(f, "tokenizer_config.json", &f->settings[0]);
    if (!status)
        status = read_if_there(f, "special_tokens_map.json", &f->settings[1]);
    if (!status)
        status = read_if_there(f, "tokenizer.json", &f->root);
    f->root_path = file_in(f, f->root ? "tokenizer.json" : "vocab.json");
    f->merges_path = file_in(f, "merges.txt");
    if (!status && (!f->root_path || !f->merges_path))
        status = HT_ERR_MEMORY;
    if (status || f->root)
        return status;
    status = ht_json_read(f->root_path, &f->root);
    return status ? status : ht_map_file(f->merges_path, &f->merges);
}

ht_status ht_clip_tokenizer_open(const char *path, ht_clip_tokenizer **out)
{
    folder f = {.arena = ht_arena_create(), .path = path};
    ht_clip_loader l = {0};
    const char *merges = NULL;
    ht_status status = f.arena ? read_folder(&f) : HT_ERR_MEMORY;
    if (status)
        goto done;
    if (strcmp(f.root_path + strlen(path), "/tokenizer.json") != 0)
        merges = f.merges.data ? (const char *)f.merges.data : "";
    l = (ht_clip_loader){.settings = {f.settings[0], f.settings[1]}, .where = f.root_path};
    l.merge_where =
        merges ? ht_sprintf(f.arena, "%s: line", f.merges_path) : ht_sprintf(f.arena, "%s: merge", f.root_path);
    status = l.merge_where ? make(&l, f.root, merges, f.merges.size, out) : HT_ERR_MEMORY;
done:
    ht_unmap_file(&f.merges);
    json_decref(f.settings[1]);
    json_decref(f.settings[0]);
    json_decref(f.root);
    ht_arena_free(f.arena);
    return status;
}

void ht_clip_tokenizer_close(ht_clip_tokenizer *t)
{
    if (t)
        ht_arena_free(t->arena);
}

const ht_clip_tokens *ht_clip_tokenizer_tokens(const ht_clip_tokenizer *t)
{
    return &t->tokens;
}

ht_status ht_clip_tokenizer_fits(const ht_clip_tokenizer *t, int vocab_size, int positions)
{
    if (t->tokens.largest >= vocab_size)
        return ht_fail(HT_ERR_SHAPE, "the tokenizer has ids up to %d, the text encoder a vocab_size of %d",
                       t->tokens.largest, vocab_size);
    if (t->tokens.length > positions)
        return ht_fail(HT_ERR_SHAPE,
                       "the tokenizer's model_max_length is %d, the text encoder's max_position_embeddings %d",
                       t->tokens.length, positions);
    return HT_OK;
}
