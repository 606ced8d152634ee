/* softmax.c - formats of attention's softmax by their names. */
#include "quant/softmax.h"

static const char *const names[HT_SOFTMAXES] = {"float", "uint16", "uint8", "log2"};

const char *ht_softmax_name(int softmax)
{
    return softmax >= 0 && softmax < HT_SOFTMAXES ? names[softmax] : NULL;
}

int ht_softmax_find(const char *name)
{
    for (int i = 0; i < HT_SOFTMAXES; i++)
        if (!strcmp(name, names[i]))
            return i;
    return -1;
}
