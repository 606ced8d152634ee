/* options.h - what a command accepts, as a table: one row an option, from which come parsing, --help, and the record in
 * pictures and in --json. */
#ifndef HALFTONE_CLI_OPTIONS_H
#define HALFTONE_CLI_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { OPTION_MAX_INTS = 256, OPTION_MAX_TEXT = 4096 };

typedef struct option_ints {
    int64_t value[OPTION_MAX_INTS];
    int count;
} option_ints;

enum { OPTION_MAX_TEXTS = 64 };

typedef struct option_texts {
    const char *value[OPTION_MAX_TEXTS];
    int count;
} option_texts;

typedef struct option_size {
    int width, height;
} option_size;

/* How the text of a value is read, and the C type that receives it.  A value is whole text: "5x" is no number, and
 * neither is "nan". */
typedef enum option_type {
    OPTION_FLAG,   /* bool; takes no value */
    OPTION_SWITCH, /* int, as in the library's options; takes no value */
    OPTION_INT,    /* int64_t in [min, max] */
    OPTION_COUNT,  /* int in [min, max], as in the library's options */
    OPTION_SEED,   /* uint64_t */
    OPTION_REAL,   /* double in [min, max] */
    OPTION_TEXT,   /* const char *, not empty */
    OPTION_CHOICE, /* const char *, one of choices */
    OPTION_INTS,   /* option_ints, "3" or "0,1,2", each in [min, max] */
    OPTION_TEXTS,  /* option_texts: an operand that takes all that follow, `min` at least; the last of its table */
    OPTION_SIZE    /* option_size, WIDTHxHEIGHT or one number for both, each in [min, max] */
} option_type;

/* A row.  Without a name it is an operand: required, in the order of the table.  A table ends with a row without name
 * and argument. */
typedef struct option {
    const char *name; /* "steps", for --steps */
    char letter;      /* 'n', for -n; 0: none */
    bool required;
    const char *argument; /* "N", in help and messages; NULL for flags */
    option_type type;
    size_t at;           /* offset of the value in the command's settings */
    double min, max;     /* of numbers; whole numbers up to 2^53 */
    const char *choices; /* "ddim|ddpm" */
    const char *initial; /* default, in the words of the command line; NULL: zero */
    bool nan_if_absent;  /* OPTION_REAL: NaN is its default, for 0 says something */
    const char *record;  /* its name in a picture's parameters; NULL: not recorded */
    const char *help;
} option;

typedef struct command {
    const char *name, *summary;
    const char *description; /* for --help; NULL: none */
    const char *examples;    /* lines, without indentation */
    const option *options;
    size_t settings_size;
    int (*run)(const void *settings); /* returns the exit code */
    bool shares;                      /* several processes may share its work: cli/ranks.h */
} command;

enum { EXIT_USAGE = 2 };

/* Read the command line (argv[0] is the command's name) into settings, which hold settings_size zeroed bytes; texts
 * point into argv. Returns -1 to go on, or the exit code: 0 after --help, 2 after one line on stderr. */
int options_parse(const command *c, int argc, char **argv, void *settings);

/* One line on stderr: "halftone sample: WORDS (see halftone sample --help)".  Returns 2. */
int options_wrong(const command *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

void options_help(const command *c);

bool option_is_last(const option *o);

/* Put the defaults into zeroed settings. */
void options_defaults(const command *c, void *settings);

/* Read a row's value: false if the text is none, and nothing changes.  Flags and switches are set whatever the text. */
bool option_read(const option *o, const char *text, void *settings);
/* What would have been right, in words; returns buffer. */
const char *option_wanted(const option *o, char *buffer, size_t size);

/* The value of a row as text, "" if it has none (no default, not given; NAN).  Returns buffer, of OPTION_MAX_TEXT
 * bytes. */
const char *option_text(const option *o, const void *settings, char *buffer);

/* The recorded values, as an object with the options' names; null where there is none.  NULL: out of memory. */
json_t *options_json(const command *c, const void *settings);
/* Those that have a value, as what is hashed for names of files: an option that a later version adds changes none of
 * them while it is not said.  For the same reason flags are texts here, as they were at first. */
json_t *options_hashed_json(const command *c, const void *settings);

/* Of the names (NULL-terminated) the one that was probably meant by word, or NULL. */
const char *nearest_name(const char *word, const char *const *names);

#endif
