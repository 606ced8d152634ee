/* ranks.c - processes that share a command's work, through MPI.
 *
 * Nothing waits inside MPI: whoever waits tests, looks for a signal and for ranks that failed, and sleeps, so ranks
 * that share processors leave them to those that work, and a failure is found at once.
 *
 * Ends: a rank that is done, or has failed, tells rank 0 with a last word: its exit code, and the line that it has
 * kept. Rank 0 prints the first such line, unless it has one of its own, and answers with the code of all, at once
 * after a failure, else when all are done.  A rank that waits for the answer to its failure in vain prints its line
 * itself and aborts all.  mpirun makes of Ctrl-C a SIGTERM to all ranks, a second before it kills them.
 *
 * Traps: OpenMPI's MPI_Init takes half a second, so a plain run does without; a launcher of another MPI starts
 * processes that each are alone in theirs. */
#include "cli/ranks.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/interrupt.h"

/* What launchers say: how many processes there are, and which is this. */
static int launched(int *rank)
{
    static const char *const names[][2] = {{"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"}, {"PMI_SIZE", "PMI_RANK"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *size = getenv(names[i][0]), *mine = getenv(names[i][1]);
        *rank = mine ? (int)strtol(mine, NULL, 10) : 0;
        if (size)
            return (int)strtol(size, NULL, 10);
    }
    return 1;
}

int64_t ranks_share_of(int rank, int64_t n, int64_t *first)
{
    int64_t each = n / ranks_count(), more = n % ranks_count();
    *first = rank * each + (rank < more ? rank : more);
    return each + (rank < more);
}

int64_t ranks_share(int64_t n, int64_t *first)
{
    return ranks_share_of(ranks_index(), n, first);
}

const ht_share *ranks_source_share(void)
{
    static ht_share share;
    share = (ht_share){.part = ranks_index(), .parts = ranks_count(), .exchange = ranks_exchange};
    return share.parts > 1 ? &share : NULL;
}

int ranks_end_early(void)
{
    if (!interrupt_signal())
        return EXIT_FAILURE;
    report("interrupted");
    return 128 + interrupt_signal();
}

#ifdef HALFTONE_MPI

#include <mpi.h>

enum { WORD = 1, ANSWER, ITEMS }; /* what a message is */
enum { LINE = 1200, PATIENCE = 30 };

#define PIECE ((size_t)1 << 30) /* MPI counts in int */

typedef struct word {
    int code; /* TEXT, FULL, or how a rank ended */
    char text[];
} word;

enum { TEXT = -1, FULL = -2 }; /* codes of words that are not the last */

typedef struct sent {
    MPI_Request request;
    word *word;
    struct sent *next;
} sent;

static struct {
    int index, count, processors;
    int code;        /* why all stop: a rank's exit code; 0: all is well */
    bool answered;   /* rank 0: all were told of `code`; others: they were */
    bool silent;     /* rank 0: a failure's line is printed */
    int full, ended; /* ranks that told all; that sent their last word */
    char line[LINE]; /* of others, kept */
    sent *outgoing;
    ranks_hear *hear;
    void *user;
} self = {.count = 1};

int ranks_index(void)
{
    return self.index;
}

int ranks_count(void)
{
    return self.count;
}

const char *ranks_library(void)
{
    static char name[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(name, &length);
    name[strcspn(name, ",\n")] = '\0';
    return name;
}

int ranks_threads(int64_t asked)
{
    return asked || self.count == 1 ? (int)asked : self.processors;
}

/* ---- beginning ---- */

/* mpirun may have bound ranks to processors, or not: a processor counts for as much as there are ranks that share it.
 */
static int count_processors(void)
{
    MPI_Comm host;
    cpu_set_t mine;
    int n;
    double share = 0;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host);
    MPI_Comm_size(host, &n);
    cpu_set_t *sets = calloc((size_t)n, sizeof *sets);
    if (sched_getaffinity(0, sizeof mine, &mine))
        CPU_ZERO(&mine);
    if (sets)
        MPI_Allgather(&mine, sizeof mine, MPI_BYTE, sets, sizeof mine, MPI_BYTE, host);
    for (size_t cpu = 0; sets && cpu < CPU_SETSIZE; cpu++) {
        int sharing = 0;
        for (int i = 0; i < n; i++)
            sharing += CPU_ISSET(cpu, &sets[i]) != 0;
        if (CPU_ISSET(cpu, &mine))
            share += 1.0 / sharing;
    }
    free(sets);
    MPI_Comm_free(&host);
    return share > 1 ? (int)(share + 1e-9) : 1;
}

int ranks_begin(void)
{
    int rank, count = launched(&rank), support;
    if (count <= 1)
        return 0;
    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &support);
    MPI_Comm_size(MPI_COMM_WORLD, &self.count);
    MPI_Comm_rank(MPI_COMM_WORLD, &self.index);
    if (self.count != count) {
        int code = rank ? EXIT_FAILURE
                        : report("was started as %d processes, but not by the mpirun of %s, which it is built with",
                                 count, ranks_library());
        self.count = 1;
        self.index = 0;
        MPI_Finalize();
        return code;
    }
    self.processors = count_processors();
    if (self.index && !freopen("/dev/null", "w", stdout))
        return report("/dev/null: cannot be written");
    return 0;
}

/* ---- words ---- */

static void forget_sent(void)
{
    for (sent **at = &self.outgoing; *at;) {
        int done;
        sent *s = *at;
        MPI_Test(&s->request, &done, MPI_STATUS_IGNORE);
        if (!done) {
            at = &s->next;
            continue;
        }
        *at = s->next;
        free(s->word);
        free(s);
    }
}

static void send_word(int code, const char *text)
{
    size_t size = sizeof(word) + strlen(text) + 1;
    sent *s = calloc(1, sizeof *s);
    word *w = malloc(size);
    if (!s || !w)
        MPI_Abort(MPI_COMM_WORLD, report("out of memory"));
    w->code = code;
    strcpy(w->text, text);
    *s = (sent){.word = w, .next = self.outgoing};
    MPI_Isend(w, (int)size, MPI_BYTE, 0, WORD, MPI_COMM_WORLD, &s->request);
    self.outgoing = s;
}

/* Rank 0: the code of all.  A number is small enough to be on its way when the call returns. */
static void answer(int code)
{
    if (self.answered)
        return;
    self.answered = true;
    for (int i = 1; i < self.count; i++)
        MPI_Send(&code, 1, MPI_INT, i, ANSWER, MPI_COMM_WORLD);
}

static void take_word(const word *w)
{
    self.full += w->code == FULL;
    self.ended += w->code >= 0;
    if (w->code == TEXT && self.hear)
        self.hear(self.user, w->text);
    if (w->code <= 0 || self.code)
        return;
    self.code = w->code;
    if (!self.silent)
        fputs(w->text, stderr);
    self.silent = true;
    answer(self.code);
}

static void listen_to_others(void)
{
    int there;
    MPI_Status status;
    for (;;) {
        int size;
        MPI_Iprobe(MPI_ANY_SOURCE, WORD, MPI_COMM_WORLD, &there, &status);
        if (!there)
            return;
        MPI_Get_count(&status, MPI_BYTE, &size);
        word *w = malloc((size_t)size);
        if (!w)
            MPI_Abort(MPI_COMM_WORLD, report("out of memory"));
        MPI_Recv(w, size, MPI_BYTE, status.MPI_SOURCE, WORD, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        take_word(w);
        free(w);
    }
}

static void listen_to_first(void)
{
    int there = 0;
    forget_sent();
    if (!self.answered)
        MPI_Iprobe(0, ANSWER, MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE);
    if (!there)
        return;
    MPI_Recv(&self.code, 1, MPI_INT, 0, ANSWER, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    self.answered = true;
}

static void listen(void)
{
    if (self.index)
        listen_to_first();
    else
        listen_to_others();
}

int ranks_stopped(void)
{
    if (self.count > 1)
        listen();
    return interrupt_signal() ? interrupt_signal() : self.code;
}

void ranks_listen(ranks_hear *hear, void *user)
{
    self.hear = hear;
    self.user = user;
}

void ranks_tell(const char *text)
{
    send_word(TEXT, text);
}

bool ranks_keep(const char *line)
{
    if (self.count == 1 || (!self.index && !self.silent))
        return false;
    if (self.index && !self.line[0])
        snprintf(self.line, sizeof self.line, "%s", line);
    return true;
}

/* ---- waiting ---- */

static void doze(int *times)
{
    if (++*times < 100)
        sched_yield();
    else
        nanosleep(&(struct timespec){0, 200000L}, NULL);
}

static int wait_for(MPI_Request *request)
{
    int done = 0, times = 0;
    for (;;) {
        MPI_Test(request, &done, MPI_STATUS_IGNORE);
        if (done)
            return 0;
        if (ranks_stopped())
            return 1;
        doze(&times);
    }
}

int ranks_told_all(void)
{
    int times = 0;
    if (self.index)
        send_word(FULL, "");
    while (!self.index && self.full < self.count - 1) {
        if (ranks_stopped())
            return 1;
        doze(&times);
    }
    self.full = 0;
    return ranks_meet();
}

int ranks_meet(void)
{
    MPI_Request request;
    if (self.count == 1)
        return 0;
    MPI_Ibarrier(MPI_COMM_WORLD, &request);
    return wait_for(&request);
}

int ranks_sum(int64_t *value)
{
    MPI_Request request;
    int64_t sum = 0;
    if (self.count == 1)
        return 0;
    MPI_Iallreduce(value, &sum, 1, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD, &request);
    if (wait_for(&request))
        return 1;
    *value = sum;
    return 0;
}

int ranks_exchange(void *user, const void *mine, size_t bytes, void *all)
{
    (void)user;
    MPI_Request request;
    MPI_Iallgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, MPI_COMM_WORLD, &request);
    return wait_for(&request);
}

/* Bytes from a rank to rank 0, on both sides. */
static int move(int rank, char *at, size_t bytes)
{
    for (size_t n; bytes; at += n, bytes -= n) {
        MPI_Request request;
        n = bytes < PIECE ? bytes : PIECE;
        if (self.index)
            MPI_Isend(at, (int)n, MPI_BYTE, 0, ITEMS, MPI_COMM_WORLD, &request);
        else
            MPI_Irecv(at, (int)n, MPI_BYTE, rank, ITEMS, MPI_COMM_WORLD, &request);
        if (wait_for(&request))
            return 1;
    }
    return 0;
}

int ranks_gather(void *items, int64_t n, size_t bytes)
{
    for (int rank = 1; rank < self.count; rank++) {
        int64_t first, count = ranks_share_of(rank, n, &first);
        if ((!self.index || self.index == rank) &&
            move(rank, (char *)items + (size_t)first * bytes, (size_t)count * bytes))
            return 1;
    }
    return 0;
}

/* ---- ending ---- */

/* Whether the others have ended, or the first has answered, before it takes too long. */
static bool wait_for_end(bool failed)
{
    int times = 0;
    double start = 0; /* of a failure */
    while (self.index ? !self.answered : self.ended < self.count - 1) {
        listen();
        failed = failed || self.code || interrupt_signal();
        if (failed && start == 0)
            start = seconds_now();
        if (failed && seconds_now() - start > PATIENCE)
            return false;
        doze(&times);
    }
    return true;
}

int ranks_end(int code)
{
    if (self.count == 1)
        return code;
    if (self.index) {
        send_word(code, self.line);
    } else if (code && !self.code) {
        self.silent = true; /* it has told */
        self.code = code;
        answer(code);
    }
    if (!wait_for_end(code)) {
        if (self.index)
            fputs(self.line, stderr);
        MPI_Abort(MPI_COMM_WORLD, code ? code : EXIT_FAILURE);
    }
    if (!self.index)
        answer(self.code);
    MPI_Finalize();
    return self.code ? self.code : code;
}

#else /* one process */

int ranks_begin(void)
{
    int rank, count = launched(&rank);
    if (count <= 1)
        return 0;
    return rank ? EXIT_FAILURE
                : report("was started as %d processes, but is built without MPI (make MPI=1): it would do the work %d "
                         "times",
                         count, count);
}

int ranks_end(int code)
{
    return code;
}

int ranks_index(void)
{
    return 0;
}

int ranks_count(void)
{
    return 1;
}

const char *ranks_library(void)
{
    return NULL;
}

int ranks_threads(int64_t asked)
{
    return (int)asked;
}

int ranks_stopped(void)
{
    return interrupt_signal();
}

int ranks_exchange(void *user, const void *mine, size_t bytes, void *all)
{
    (void)user;
    memcpy(all, mine, bytes);
    return 0;
}

int ranks_gather(void *items, int64_t n, size_t bytes)
{
    (void)items;
    (void)n;
    (void)bytes;
    return 0;
}

int ranks_sum(int64_t *value)
{
    (void)value;
    return 0;
}

int ranks_meet(void)
{
    return 0;
}

void ranks_listen(ranks_hear *hear, void *user)
{
    (void)hear;
    (void)user;
}

void ranks_tell(const char *text)
{
    (void)text;
}

int ranks_told_all(void)
{
    return 0;
}

bool ranks_keep(const char *line)
{
    (void)line;
    return false;
}

#endif
