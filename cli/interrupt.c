/* interrupt.c - a flag that signal handlers set and the progress callback reads.  The handler removes itself: a second
 * signal acts as usual.  Calls that wait are not restarted: a FIFO that nobody reads would wait for ever.  What whoever
 * started the program has it ignore (nohup, a shell's background job) stays ignored. */
#include "cli/interrupt.h"

#include <signal.h>
#include <stddef.h>

static const int watched[] = {SIGINT, SIGTERM, SIGHUP};
static volatile sig_atomic_t caught;

static void on_signal(int signal)
{
    caught = signal;
}

void interrupt_watch(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND}, before;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof watched / sizeof *watched; i++)
        if (!sigaction(watched[i], NULL, &before) && before.sa_handler != SIG_IGN)
            sigaction(watched[i], &action, NULL);
}

int interrupt_signal(void)
{
    return (int)caught;
}
