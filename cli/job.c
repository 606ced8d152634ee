/* job.c - opening the model that a command works on, and telling of what came of it. */
#include "cli/job.h"

#include "cli/interrupt.h"
#include "cli/report.h"

int job_run(const char *model, const char *component, int (*work)(const void *settings, ht_model *model),
            const void *settings)
{
    ht_model *opened;
    interrupt_watch();
    if (ht_model_open(model, component, &opened))
        return report_failure();
    int code = work(settings, opened);
    ht_model_close(opened);
    return code;
}

int job_result(ht_status status, const char *output)
{
    /* the library has no word for a wait that a signal ended: HT_ERR_IO, as from a FIFO that nobody reads */
    if ((status == HT_ERR_CANCELLED || status == HT_ERR_IO) && interrupt_signal()) {
        report("interrupted: %s was not written", output);
        return 128 + interrupt_signal();
    }
    return status ? report_failure() : -1;
}
