/* interrupt.h - Ctrl-C and its like: the first asks the work to stop at its next step, the second kills. */
#ifndef HALFTONE_CLI_INTERRUPT_H
#define HALFTONE_CLI_INTERRUPT_H

void interrupt_watch(void);
/* The signal that asked to stop (SIGINT, SIGTERM, SIGHUP), or 0. */
int interrupt_signal(void);

#endif
