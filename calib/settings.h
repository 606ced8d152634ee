/* settings.h - what ht_calibrate and ht_quantize can be told, a table each: defaults, what a file says of how it was
 * made, and what tells one making from another all come from it. */
#ifndef HT_CALIB_SETTINGS_H
#define HT_CALIB_SETTINGS_H

#include <jansson.h>
#include <stdbool.h>

#include "core/error.h"

typedef enum ht_setting_type {
    HT_SETTING_TEXT, /* const char * */
    HT_SETTING_INT,  /* int */
    HT_SETTING_REAL, /* double */
    HT_SETTING_YES,  /* int, true or false in JSON */
    HT_SETTING_NO,   /* the same, JSON says the opposite */
    HT_SETTING_SEED  /* uint64_t */
} ht_setting_type;

typedef struct ht_setting {
    const char *name; /* in JSON */
    ht_setting_type type;
    size_t at;                     /* in the options */
    const char *text;              /* default, for the NULL of texts */
    double number;                 /* default, for the 0 of numbers */
    double least, most;            /* of numbers in a file */
    bool optional;                 /* files of earlier versions do not say it */
    int (*find)(const char *name); /* of texts in a file: negative for what there is not; NULL: any */
} ht_setting;

/* Each ends with a row without a name. */
extern const ht_setting ht_calibrate_settings[], ht_quantize_settings[];

/* Put defaults in the place of what was left out. */
void ht_settings_fill(const ht_setting *rows, void *options);

/* An object with every row.  NULL: out of memory. */
json_t *ht_settings_json(const ht_setting *rows, const void *options);

/* Whether an object could have been written by ht_settings_json: HT_ERR_FORMAT, beginning with `where`, names the row
 * that is missing or makes no sense. */
ht_status ht_settings_check_json(const ht_setting *rows, const json_t *object, const char *where);

#endif
