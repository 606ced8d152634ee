/* fid_network.c - where feature networks lie: beside a model, in models/ of a working copy, where they are installed.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/fid.h"

#define INCEPTION_URL                                                                                                  \
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"

static const char inception[] = "inception";
static const char inception_file[] = "pt_inception-2015-12-05-6726825d.safetensors";

/* Small networks that come with Halftone, each the default for pictures of its size. */
typedef struct shipped {
    const char *name;   /* of its weights, and of its folder where it is installed */
    const char *folder; /* below models/ */
    int side;
} shipped;

static const shipped networks[] = {
    {"resnet18_w24", "cifar10/features", 32},
    {"resnet18_w24_emoji", "emoji/features", 64},
};

enum { NETWORKS = sizeof networks / sizeof *networks };

/* The folder of the program's file, without the slash; "" if the system does not say. */
static void program_folder(char folder[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", folder, PATH_MAX - 1);
    folder[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(folder, '/');
    *(slash ? slash : folder) = '\0';
}

/* Below the current folder, of a working copy around the program, where `make install` puts it. */
static bool find(const char *in_models, const char *installed, char path[PATH_MAX])
{
    char program[PATH_MAX];
    program_folder(program);
    for (int i = 0; i < 3; i++) {
        int n = i == 0   ? snprintf(path, PATH_MAX, "models/%s", in_models)
                : i == 1 ? snprintf(path, PATH_MAX, "%s/../../models/%s", program, in_models)
                         : snprintf(path, PATH_MAX, "%s/../share/halftone/%s", program, installed);
        if (n < PATH_MAX && !access(path, R_OK))
            return true;
    }
    return false;
}

static int need_inception(void)
{
    return report(
        "FID's InceptionV3 is not there, and cannot be shipped: get " INCEPTION_URL
        ", run tools/inception_weights.py on it, and put %s into models/inception/ or name it with --features",
        inception_file);
}

static int find_inception(char path[PATH_MAX])
{
    char name[128];
    snprintf(name, sizeof name, "%s/%s", inception, inception_file);
    return find(name, name, path) ? 0 : need_inception();
}

static int find_shipped(const shipped *n, char path[PATH_MAX])
{
    if (find(n->folder, n->name, path))
        return 0;
    return report("%s is not there: name its folder, models/%s of Halftone's sources, with --features", n->name,
                  n->folder);
}

static const shipped *shipped_named(const char *name)
{
    for (int i = 0; i < NETWORKS; i++)
        if (!strcmp(networks[i].name, name))
            return &networks[i];
    return NULL;
}

static const shipped *shipped_for(int height, int width)
{
    for (int i = 0; i < NETWORKS; i++)
        if (networks[i].side == height && networks[i].side == width)
            return &networks[i];
    return NULL;
}

int fid_find_network(const fid_settings *s, const char *model, int height, int width, char path[PATH_MAX])
{
    if (s->features && !strcmp(s->features, inception))
        return find_inception(path);
    const shipped *named = s->features ? shipped_named(s->features) : NULL, *fitting = shipped_for(height, width);
    if (named && access(named->name, F_OK))
        return find_shipped(named, path);
    if (s->features) {
        int n = snprintf(path, PATH_MAX, "%s", s->features);
        return n < PATH_MAX ? 0 : report("--features: a path of %d bytes is too long", n);
    }
    if (model && snprintf(path, PATH_MAX, "%s/features", model) < PATH_MAX && !access(path, R_OK))
        return 0;
    return fitting ? find_shipped(fitting, path) : find_inception(path);
}
