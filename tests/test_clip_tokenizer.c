/* test_clip_tokenizer.c - CLIP's tokenizer: every recorded string exactly, files that do not fit each other, texts that
 * nobody would write. */
#include "tests/folder.h"
#include "tests/goldens.h"
#include "text/clip_tokenizer.h"

#define FOLDER GOLDENS "/clip-tokenizer"

static ht_clip_tokenizer *clip;

static int open_clip(void **state)
{
    (void)state;
    if (!ht_clip_tokenizer_open(FOLDER, &clip))
        return make_folder(state);
    print_message("%s\n", ht_error_message());
    return -1;
}

static int close_clip(void **state)
{
    ht_clip_tokenizer_close(clip);
    return remove_folder(state);
}

static void assert_ids(const json_t *want, const char *text, const int32_t *got, size_t n, size_t skip)
{
    if (json_array_size(want) != n + 2 * skip)
        fail_msg("\"%.60s\": %zu ids, want %zu", text, n + 2 * skip, json_array_size(want));
    for (size_t i = 0; i < n; i++)
        if (json_integer_value(json_array_get(want, i + skip)) != got[i])
            fail_msg("\"%.60s\": id %zu is %d, want %d", text, i, got[i],
                     (int)json_integer_value(json_array_get(want, i + skip)));
}

/* The rows of golden.json, an array, as an object's member, which is what ht_json_parse reads. */
static json_t *golden_rows(void)
{
    json_error_t error;
    json_t *rows = json_load_file(GOLDENS "/tokenizer/clip/golden.json", JSON_ALLOW_NUL, &error);
    if (!json_is_array(rows))
        fail_msg("golden.json: %s", error.text);
    return rows;
}

static void check_row(const ht_clip_tokenizer *t, const json_t *row)
{
    const json_t *text = json_object_get(row, "text");
    const char *s = json_string_value(text);
    int32_t padded[77];
    ht_ids ids = {0};
    size_t cut, size = json_string_length(text);
    assert_ok(ht_clip_tokenize(t, s, size, &ids));
    assert_ids(json_object_get(row, "ids"), s, ids.at, ids.n, 1);
    assert_ok(ht_clip_encode(t, s, size, padded, &cut));
    assert_ids(json_object_get(row, "padded"), s, padded, 77, 0);
    assert_int_equal(cut, ids.n > 75 ? ids.n - 75 : 0);
    ht_ids_free(&ids);
}

static void check_rows(const ht_clip_tokenizer *t)
{
    size_t i;
    json_t *row, *rows = golden_rows();
    json_array_foreach(rows, i, row) check_row(t, row);
    assert_true(i > 120);
    json_decref(rows);
}

static void ids_are_those_of_the_library(void **state)
{
    (void)state;
    check_rows(clip);
}

static json_t *step(const char *type)
{
    return json_pack("{s:s}", "type", type);
}

static json_t *golden_merges(void)
{
    char line[600];
    json_t *list = json_array();
    FILE *f = fopen(FOLDER "/merges.txt", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        char *space = strchr(line, ' ');
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, "#version", 8))
            continue;
        if (json_array_size(list) % 2) /* both forms */
            json_array_append_new(list, json_string(line));
        else
            json_array_append_new(list, json_pack("[s#, s]", line, (int)(space - line), space + 1));
    }
    fclose(f);
    return list;
}

/* The same tokenizer as one tokenizer.json; regex: of its split. */
static void put_tokenizer_json(const char *regex)
{
    json_t *vocab;
    assert_ok(ht_json_read(FOLDER "/vocab.json", &vocab));
    json_t *model = json_pack("{s:s, s:s, s:o, s:o}", "type", "BPE", "end_of_word_suffix", "</w>", "vocab", vocab,
                              "merges", golden_merges());
    json_t *normalizer = json_pack("{s:s, s:[o, o, o]}", "type", "Sequence", "normalizers", step("NFC"),
                                   step("Replace"), step("Lowercase"));
    json_t *split = json_pack("{s:s, s:[{s:s, s:{s:s}}, o]}", "type", "Sequence", "pretokenizers", "type", "Split",
                              "pattern", "Regex", regex, step("ByteLevel"));
    json_t *root = json_pack("{s:o, s:o, s:o}", "model", model, "normalizer", normalizer, "pre_tokenizer", split);
    assert_non_null(root);
    assert_int_equal(json_dump_file(root, in_folder("tokenizer.json"), 0), 0);
    json_decref(root);
}

static void a_tokenizer_json_gives_the_same_ids(void **state)
{
    (void)state;
    ht_clip_tokenizer *t;
    put_tokenizer_json("'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+");
    assert_ok(ht_clip_tokenizer_open(folder, &t));
    check_rows(t);
    ht_clip_tokenizer_close(t);
    put_tokenizer_json("\\p{L}+|\\s+");
    assert_refused(ht_clip_tokenizer_open(folder, &t), HT_ERR_UNSUPPORTED, "pre_tokenizer is not CLIP's");
    unlink(in_folder("tokenizer.json"));
}

static void padding_is_what_the_settings_say(void **state)
{
    (void)state;
    ht_clip_tokenizer *t;
    int32_t row[77];
    assert_ok(ht_clip_tokenizer_open(GOLDENS "/pipeline/sdxl/tokenizer_2", &t));
    const ht_clip_tokens *tokens = ht_clip_tokenizer_tokens(t);
    assert_int_equal(tokens->start, 598);
    assert_int_equal(tokens->end, 599);
    assert_int_equal(tokens->pad, 0);
    assert_int_equal(tokens->largest, 599);
    assert_ok(ht_clip_encode(t, "!a", 2, row, NULL)); /* a special token's string is that token wherever it stands */
    const int32_t want[] = {598, 0, 320, 599, 0, 0};
    assert_memory_equal(row, want, sizeof want);
    assert_int_equal(row[76], 0);
    assert_refused(ht_clip_tokenizer_fits(t, 599, 77), HT_ERR_SHAPE, "ids up to 599");
    assert_refused(ht_clip_tokenizer_fits(t, 600, 64), HT_ERR_SHAPE, "max_position_embeddings 64");
    assert_ok(ht_clip_tokenizer_fits(t, 600, 77));
    ht_clip_tokenizer_close(t);
}

static void text_that_is_not_utf8_is_refused_with_its_offset(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"a cat\xff", "byte 0xff at offset 5"},      {"\x80", "byte 0x80 at offset 0"},
        {"ab\xc3", "byte 0xc3 at offset 2"},         {"\xc0\xaf", "byte 0xc0 at offset 0"},
        {"x\xed\xa0\x80y", "byte 0xed at offset 1"}, {"\xf4\x90\x80\x80", "byte 0xf4 at offset 0"},
        {"\xf0\x9f\x98", "byte 0xf0 at offset 0"},   {"<|endoftext|> \xfe", "byte 0xfe at offset 14"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ht_ids ids = {0};
        assert_refused(ht_clip_tokenize(clip, cases[i].text, strlen(cases[i].text), &ids), HT_ERR_ARGUMENT,
                       cases[i].words);
        ht_ids_free(&ids);
    }
}

static char *repeated(const char *unit, size_t size)
{
    char *text = malloc(size + 16);
    size_t n = strlen(unit);
    assert_non_null(text);
    for (size_t i = 0; i < size; i += n)
        memcpy(text + i, unit, n);
    return text;
}

/* A word, marks in the worst order for a sort by exchange, marks and specials that are cut off. */
static void a_megabyte_is_read_whatever_it_holds(void **state)
{
    (void)state;
    static const char *const units[] = {"a",           "ab", "!", "1", "'", " ", "\xcc\x81\xcc\xa7", "<|endoftext|",
                                        "\xe7\x8c\xab"};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        size_t size = (1 << 20) / strlen(units[i]) * strlen(units[i]);
        char *text = repeated(units[i], size);
        ht_ids ids = {0};
        assert_ok(ht_clip_tokenize(clip, text, size, &ids));
        assert_true(*units[i] == ' ' ? ids.n == 0 : ids.n > 1000);
        ht_ids_free(&ids);
        free(text);
    }
    ht_ids ids = {0};
    assert_refused(ht_clip_tokenize(clip, "", (size_t)HT_LONGEST_TEXT + 1, &ids), HT_ERR_ARGUMENT, "bytes");
}

#define SPECIALS "\"<|startoftext|>\":90,\"<|endoftext|>\":91"

static ht_status parse(const char *vocab, const char *merges, const char *config)
{
    ht_clip_tokenizer *t = NULL;
    ht_clip_files f = {.vocab = vocab,
                       .merges = merges,
                       .config = config,
                       .vocab_size = strlen(vocab),
                       .merges_size = merges ? strlen(merges) : 0,
                       .config_size = config ? strlen(config) : 0};
    ht_status status = ht_clip_tokenizer_parse(&f, &t);
    ht_clip_tokenizer_close(t);
    return status;
}

static void files_that_do_not_fit_each_other_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *vocab, *merges, *config, *words;
    } cases[] = {
        {"{\"a\":0,\"b\":1," SPECIALS "}", "#version: 0.2\na b\n", NULL, "line 2: makes \"ab\", which is not in"},
        {"{\"a\":0,\"ab\":1," SPECIALS "}", "a b\n", NULL, "line 1: \"b\" is not in the vocabulary"},
        {"{\"a\":0,\"b\":1,\"ab\":2," SPECIALS "}", "a b\na b\n", NULL, "line 2: is the same merge as 1"},
        {"{\"a\":0," SPECIALS "}", "a \n", NULL, "line 1: want two tokens"},
        {"{\"a\":0," SPECIALS "}", " a\n", NULL, "line 1: want two tokens"},
        {"{\"a\":0," SPECIALS "}", "a\n", NULL, "line 1: \"a\" is not two tokens"},
        {"{\"a\":0," SPECIALS "}", "a a a\n", NULL, "is not two tokens"},
        {"{\"a\":0,\"aa\":0," SPECIALS "}", "a a\n", NULL, "which another token has too"},
        {"{\"a\":-1," SPECIALS "}", "", NULL, "must be a whole number"},
        {"{\"a\":\"0\"," SPECIALS "}", "", NULL, "must be a whole number"},
        {"{\"a\":99999999," SPECIALS "}", "", NULL, "must be a whole number"},
        {"{\"a\":0,\"<|endoftext|>\":1}", "", NULL, "no token \"<|startoftext|>\", which is the tokenizer's bos_token"},
        {"{\"a\":0,\"<|startoftext|>\":1}", "", NULL, "no token \"<|endoftext|>\""},
        {"{" SPECIALS "}", "", "{\"pad_token\":\"!\"}", "which is the tokenizer's pad_token"},
        {"{" SPECIALS "}", "", "{\"bos_token\":{\"content\":\"\"}}", "bos_token"},
        {"{" SPECIALS "}", "", "{\"model_max_length\":2}", "model_max_length"},
        {"{\"a\":0,\"a\":1," SPECIALS "}", "", NULL, "\"a\" is given twice"},
        {"[]", "", NULL, "want an object"},
        {"{}", NULL, NULL, "model must be of type BPE"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ht_status status = parse(cases[i].vocab, cases[i].merges, cases[i].config);
        if (!status || !strstr(ht_error_message(), cases[i].words))
            fail_msg("case %zu: status %d, \"%s\"; want \"%s\"", i, status, ht_error_message(), cases[i].words);
    }
    assert_ok(parse("{\"a\":0,\"b\":1,\"ab\":2," SPECIALS "}", "#version: 0.2\r\na b\r\n", NULL));
}

static void a_folder_without_files_is_refused(void **state)
{
    (void)state;
    ht_clip_tokenizer *t;
    assert_refused(ht_clip_tokenizer_open(folder, &t), HT_ERR_IO, "vocab.json");
    put_file("vocab.json", "{" SPECIALS "}", sizeof "{" SPECIALS "}" - 1);
    assert_refused(ht_clip_tokenizer_open(folder, &t), HT_ERR_IO, "merges.txt");
    unlink(in_folder("vocab.json"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_the_library),
        cmocka_unit_test(a_tokenizer_json_gives_the_same_ids),
        cmocka_unit_test(padding_is_what_the_settings_say),
        cmocka_unit_test(text_that_is_not_utf8_is_refused_with_its_offset),
        cmocka_unit_test(a_megabyte_is_read_whatever_it_holds),
        cmocka_unit_test(files_that_do_not_fit_each_other_are_refused),
        cmocka_unit_test(a_folder_without_files_is_refused),
    };
    return cmocka_run_group_tests(tests, open_clip, close_clip);
}
