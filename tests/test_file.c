/* test_file.c - mapping refuses what is not a file; an output appears whole or not at all. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "tests/folder.h"

static void assert_refused(ht_status status, const char *words)
{
    assert_int_equal(status, HT_ERR_IO);
    if (!strstr(ht_error_message(), words))
        fail_msg("message is '%s', want '%s' in it", ht_error_message(), words);
}

static void assert_holds(const char *path, const char *text)
{
    ht_mapping m;
    assert_int_equal(ht_map_file(path, &m), HT_OK);
    assert_int_equal(m.size, strlen(text));
    assert_memory_equal(m.data, text, m.size);
    ht_unmap_file(&m);
}

static void assert_writes(const char *path, const char *text)
{
    ht_output *o = NULL;
    assert_int_equal(ht_output_open(path, &o), HT_OK);
    assert_int_equal(fputs(text, ht_output_stream(o)) >= 0, 1);
    assert_int_equal(ht_output_commit(o), HT_OK);
}

/* ---- reading ---- */

static void a_file_is_mapped_whole(void **state)
{
    (void)state;
    put_file("a", "some bytes", 10);
    assert_holds(in_folder("a"), "some bytes");
}

static void an_empty_file_is_no_bytes(void **state)
{
    ht_mapping m = {.data = (const unsigned char *)"x", .size = 1};
    (void)state;
    put_file("a", "", 0);
    assert_int_equal(ht_map_file(in_folder("a"), &m), HT_OK);
    assert_null(m.data);
    assert_int_equal(m.size, 0);
    ht_unmap_file(&m);
}

static void what_is_not_a_file_is_not_mapped(void **state)
{
    ht_mapping m;
    (void)state;
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
    assert_refused(ht_map_file(in_folder("absent"), &m), "No such file");
    assert_refused(ht_map_file(folder, &m), "is a folder");
    assert_refused(ht_map_file(in_folder("fifo"), &m), "is a FIFO"); /* and nobody waited for a writer */
    assert_refused(ht_map_file("/dev/null", &m), "is a device");
}

/* ---- writing ---- */

static void an_output_appears_when_it_is_committed(void **state)
{
    ht_output *o = NULL;
    struct stat st;
    mode_t mask = umask(027);
    const char *path = in_folder("a.png");
    (void)state;
    assert_int_equal(ht_output_open(path, &o), HT_OK);
    umask(mask);
    fputs("picture", ht_output_stream(o));
    assert_int_equal(stat(path, &st), -1);
    assert_int_equal(ht_output_commit(o), HT_OK);
    assert_holds(path, "picture");
    assert_int_equal(files_in_folder(), 1);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
}

static void the_old_file_stays_until_then_and_gives_its_permissions(void **state)
{
    ht_output *o = NULL;
    struct stat st;
    const char *path = in_folder("a");
    (void)state;
    put_file("a", "old", 3);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(ht_output_open(path, &o), HT_OK);
    fputs("new", ht_output_stream(o));
    fflush(ht_output_stream(o));
    assert_holds(path, "old");
    assert_int_equal(ht_output_commit(o), HT_OK);
    assert_holds(path, "new");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void a_discarded_output_leaves_nothing(void **state)
{
    ht_output *o = NULL;
    (void)state;
    put_file("a", "old", 3);
    assert_int_equal(ht_output_open(in_folder("a"), &o), HT_OK);
    fputs("new", ht_output_stream(o));
    ht_output_discard(o);
    ht_output_discard(NULL);
    assert_int_equal(files_in_folder(), 1);
    assert_holds(in_folder("a"), "old");
}

static void two_outputs_of_one_name_do_not_meet(void **state)
{
    ht_output *a = NULL, *b = NULL;
    (void)state;
    assert_int_equal(ht_output_open(in_folder("x"), &a), HT_OK);
    assert_int_equal(ht_output_open(in_folder("x"), &b), HT_OK);
    fputs("first", ht_output_stream(a));
    fputs("second", ht_output_stream(b));
    assert_int_equal(ht_output_commit(b), HT_OK);
    assert_int_equal(ht_output_commit(a), HT_OK);
    assert_holds(in_folder("x"), "first");
    assert_int_equal(files_in_folder(), 1);
}

static void the_longest_name_can_be_written(void **state)
{
    char name[256];
    (void)state;
    memset(name, 'n', 255);
    name[255] = '\0';
    assert_writes(in_folder(name), "x");
    assert_holds(in_folder(name), "x");
}

static void a_name_without_a_folder_is_in_the_current_one(void **state)
{
    char before[4096];
    (void)state;
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(folder), 0);
    assert_writes("plain", "x");
    assert_int_equal(chdir(before), 0);
    assert_holds(in_folder("plain"), "x");
}

static void a_link_stays_and_what_it_names_is_replaced(void **state)
{
    struct stat st;
    (void)state;
    put_file("file", "old", 3);
    assert_int_equal(symlink("file", in_folder("link")), 0);
    assert_writes(in_folder("link"), "new");
    assert_holds(in_folder("file"), "new");
    assert_int_equal(lstat(in_folder("link"), &st), 0);
    assert_true(S_ISLNK(st.st_mode));
}

static void targets_that_cannot_be_are_refused_at_once(void **state)
{
    ht_output *o = NULL;
    (void)state;
    put_file("file", "", 0);
    assert_int_equal(symlink("nowhere", in_folder("link")), 0);
    assert_refused(ht_output_open(folder, &o), "is a folder");
    assert_refused(ht_output_open(in_folder("absent/x"), &o), "No such file or directory");
    assert_refused(ht_output_open(in_folder("file/x"), &o), "Not a directory");
    assert_refused(ht_output_open(in_folder("link"), &o), "link to a file that does not exist");
    assert_int_equal(ht_output_open("", &o), HT_ERR_ARGUMENT);
    assert_null(o);
    assert_int_equal(files_in_folder(), 2);
}

/* Root may write anything, so as root this runs as nobody. */
static void a_read_only_file_is_refused(void **state)
{
    enum { NOBODY = 65534 };
    ht_output *o = NULL;
    int root = geteuid() == 0;
    (void)state;
    put_file("file", "old", 3);
    assert_int_equal(chmod(in_folder("file"), 0444), 0);
    assert_int_equal(chmod(folder, 0777), 0);
    if (root)
        assert_int_equal(seteuid(NOBODY), 0);
    ht_status status = ht_output_open(in_folder("file"), &o);
    if (root)
        assert_int_equal(seteuid(0), 0);
    assert_refused(status, "Permission denied");
    assert_holds(in_folder("file"), "old");
    assert_int_equal(files_in_folder(), 1);
}

static void devices_and_fifos_are_written_in_place(void **state)
{
    char text[8] = "";
    struct stat st;
    (void)state;
    assert_writes("/dev/null", "x");
    assert_int_equal(stat("/dev/null", &st), 0);
    assert_true(S_ISCHR(st.st_mode));
    assert_int_equal(mkfifo(in_folder("fifo"), 0600), 0);
    int reader = open(in_folder("fifo"), O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    assert_writes(in_folder("fifo"), "text");
    assert_int_equal(read(reader, text, sizeof text), 4);
    close(reader);
    assert_string_equal(text, "text");
    assert_int_equal(files_in_folder(), 1);
}

static void a_descriptor_is_written_in_place_even_if_it_is_a_file(void **state)
{
    char path[32];
    struct stat before, after;
    (void)state;
    put_file("a", "old", 3);
    int fd = open(in_folder("a"), O_RDWR);
    assert_true(fd >= 0);
    snprintf(path, sizeof path, "/dev/fd/%d", fd);
    assert_int_equal(fstat(fd, &before), 0);
    assert_writes(path, "new");
    assert_int_equal(stat(in_folder("a"), &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    close(fd);
    assert_holds(in_folder("a"), "new");
}

static void a_full_device_is_one_clear_message(void **state)
{
    ht_output *o = NULL;
    (void)state;
    assert_int_equal(ht_output_open("/dev/full", &o), HT_OK);
    fputs("x", ht_output_stream(o));
    assert_refused(ht_output_commit(o), "/dev/full: cannot write: No space left on device");
}

/* size bytes to a file that may have 4096 */
static ht_status write_past_a_limit(const char *path, size_t size)
{
    static const char zeros[1 << 16];
    struct rlimit old, low;
    ht_output *o = NULL;
    getrlimit(RLIMIT_FSIZE, &old);
    low = old;
    low.rlim_cur = 4096;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &low);
    ht_status status = ht_output_open(path, &o);
    if (status == HT_OK) {
        fwrite(zeros, 1, size, ht_output_stream(o));
        status = ht_output_commit(o);
    }
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, handler);
    return status;
}

static void a_full_disk_leaves_nothing(void **state)
{
    (void)state;
    assert_refused(write_past_a_limit(in_folder("big"), 1 << 16), "big: cannot write");
    assert_int_equal(files_in_folder(), 0);
    put_file("big", "old", 3);
    assert_refused(write_past_a_limit(in_folder("big"), 1 << 16), "big: cannot write");
    assert_refused(write_past_a_limit(in_folder("big"), 4097), "big: cannot write: File too large");
    assert_int_equal(files_in_folder(), 1);
    assert_holds(in_folder("big"), "old");
}

#define IN_FOLDER(claim) cmocka_unit_test_setup_teardown(claim, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_file_is_mapped_whole),
        IN_FOLDER(an_empty_file_is_no_bytes),
        IN_FOLDER(what_is_not_a_file_is_not_mapped),
        IN_FOLDER(an_output_appears_when_it_is_committed),
        IN_FOLDER(the_old_file_stays_until_then_and_gives_its_permissions),
        IN_FOLDER(a_discarded_output_leaves_nothing),
        IN_FOLDER(two_outputs_of_one_name_do_not_meet),
        IN_FOLDER(the_longest_name_can_be_written),
        IN_FOLDER(a_name_without_a_folder_is_in_the_current_one),
        IN_FOLDER(a_link_stays_and_what_it_names_is_replaced),
        IN_FOLDER(targets_that_cannot_be_are_refused_at_once),
        IN_FOLDER(a_read_only_file_is_refused),
        IN_FOLDER(devices_and_fifos_are_written_in_place),
        IN_FOLDER(a_descriptor_is_written_in_place_even_if_it_is_a_file),
        cmocka_unit_test(a_full_device_is_one_clear_message),
        IN_FOLDER(a_full_disk_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
