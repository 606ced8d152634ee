# Halftone.  `make demo` draws, `make test` tests; both install what is missing first (tools/deps.sh).
#   make             the library and the program, in build/release/
#   make asan        the tests under the Address and UndefinedBehavior sanitizers
#   make valgrind    the tests under valgrind
#   make fuzz        libFuzzer over the readers, FUZZ_SECONDS each
#   make bench       how fast the CIFAR-10 model runs here
#   make cuda        the module for NVIDIA GPUs, where nvcc is;  make gpu-test, gpu-bench: on a machine with one
#   make lint        clang-tidy, cppcheck;  make format: clang-format
#   make install     PREFIX=/usr/local DESTDIR=;  make uninstall
#   make MPI=0       one process alone: without OpenMPI, which is taken where it is installed
ifeq ($(origin CC),default)
CC       := gcc
endif
VARIANT  ?= release
B        := build/$(VARIANT)
PREFIX   ?= /usr/local
FUZZ_SECONDS ?= 60
VERSION  := $(shell sed -n 's/^.define HT_VERSION "\(.*\)"/\1/p' include/halftone.h)

# All processors, unless a number was given.
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc)
endif

# Several processes share work through OpenMPI where it is installed; MPI=0 leaves it out, MPI=1 insists.
ifndef MPI
MPI      := $(shell pkg-config --exists ompi 2>/dev/null && echo 1 || echo 0)
endif
ifeq ($(MPI),1)
MPI_CFLAGS := -DHALFTONE_MPI $(patsubst -I%,-isystem %,$(shell pkg-config --cflags ompi))
MPI_LIBS   := $(shell pkg-config --libs ompi)
endif

WARN     := -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
FLAGS_release := -O3 -g
FLAGS_asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FLAGS_fuzz    := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
# No contraction and no -ffast-math anywhere: where a multiply and an add are one operation, the source says so.
CFLAGS   := $(WARN) $(FLAGS_$(VARIANT)) -ffp-contract=off -pthread -fPIC -fvisibility=hidden -MMD -MP -I. -Iinclude $(EXTRA_CFLAGS)
LDFLAGS  := $(filter -fsanitize%,$(FLAGS_$(VARIANT))) -pthread
LDLIBS   := -ljansson -lzip -ljpeg -lz -llapacke -lblas -lmd -lutf8proc -ldl -lm

ROOMS    := core graph cpu cuda unet dit vae text sampler quant calib eval
LIB_SRC  := $(foreach r,$(ROOMS),$(wildcard $(r)/*.c))
CLI_SRC  := $(wildcard cli/*.c)
TEST_SRC := $(wildcard tests/test_*.c)
ifneq ($(MPI),1)
TEST_SRC := $(filter-out tests/test_ranks.c,$(TEST_SRC))
endif
FUZZ_SRC := $(wildcard tests/fuzz_*.c)
LIB_OBJ  := $(LIB_SRC:%.c=$(B)/%.o)
CLI_OBJ  := $(CLI_SRC:%.c=$(B)/%.o)
# The last one is the backend for GPUs with a module of plain loops, which it finds beside itself.
SCALAR   := $(B)/tests/scalar
TESTS    := $(TEST_SRC:tests/%.c=$(B)/tests/%) $(SCALAR)/cuda_backend
FUZZERS  := $(FUZZ_SRC:tests/%.c=$(B)/tests/%)

# make V=1 shows the commands.
ifeq ($(V),)
SAY       = @echo "  $(1) $(2)";
endif

all: $(B)/libhalftone.a $(B)/halftone

# Loops over weights that become vectors once the compiler need not keep floating-point traps and errno; no result changes.
$(B)/calib/gate.o: CFLAGS += -fno-trapping-math -fno-math-errno

# Instruction sets are picked at run time: each file of one gets its own flags.
$(B)/cpu/avx2.o:   CFLAGS += -O3 -mavx2 -mfma -mf16c
$(B)/cpu/avx2_quantized.o: CFLAGS += -O3 -mavx2 -mfma -mf16c
AVX512 := -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -mprefer-vector-width=512
$(B)/cpu/avx512.o: CFLAGS += $(AVX512)
$(B)/cpu/avx512vnni.o: CFLAGS += $(AVX512) -mavx512vnni
$(B)/cpu/amx.o: CFLAGS += $(AVX512) -mamx-tile -mamx-int8

# A build with MPI after one without, or the other way round, compiles what depends on it again.
$(B)/cli/ranks.o: CFLAGS += $(MPI_CFLAGS)
$(B)/cli/ranks.o: $(B)/mpi
$(B)/mpi: always
	@mkdir -p $(@D)
	@echo '$(MPI)' | cmp -s - $@ || echo '$(MPI)' > $@

# The tests that run the program.
PROGRAM_TESTS := $(B)/tests/test_cli $(B)/tests/test_bad_input $(B)/tests/test_cli_quantize $(B)/tests/test_manual \
                 $(B)/tests/test_fid $(B)/tests/test_sweep $(B)/tests/test_ranks $(B)/tests/test_cli_prompts
$(PROGRAM_TESTS:%=%.o): CFLAGS += -DHALFTONE_PROGRAM='"$(B)/halftone"'
$(PROGRAM_TESTS): $(B)/halftone

# ---- the module for NVIDIA GPUs: opened at run time, linked with nothing of the library ----
NVCC       ?= nvcc
CUDA_ARCHS ?= 80 89 90a
CUDA_SRC   := $(wildcard cuda/*.cu) cuda/pick.c
CUDA_OBJ   := $(CUDA_SRC:%=$(B)/module/%.o)
CUDA_FLAGS := -std=c++17 -O3 -lineinfo -I. -Xcompiler -fPIC,-fvisibility=hidden,-Wall \
              $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a),code=sm_$(a)) -gencode arch=compute_90,code=compute_90

cuda: $(B)/libhalftone-cuda.so $(B)/tests/cuda_product $(B)/tests/cuda_kernels

$(B)/module/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(call SAY,NVCC,$<)$(NVCC) $(CUDA_FLAGS) -MMD -MF $(@:.o=.d) -MT $@ -c $< -o $@

$(B)/module/%.c.o: %.c
	@mkdir -p $(@D)
	$(call SAY,CC,$<)$(CC) $(CFLAGS) -c $< -o $@

$(B)/tests/scalar_module.o: CFLAGS += -O3

$(B)/libhalftone-cuda.so: $(CUDA_OBJ)
	$(call SAY,LD,$@)$(NVCC) -shared -cudart static $^ -o $@

$(SCALAR)/libhalftone-cuda.so: $(B)/tests/scalar_module.o $(B)/core/dtype.o
	@mkdir -p $(@D)
	$(call SAY,LD,$@)$(CC) -shared $(LDFLAGS) $^ -lm -o $@

$(SCALAR)/cuda_backend: $(B)/tests/cuda_backend $(SCALAR)/libhalftone-cuda.so
	@cp $< $@

$(B)/tests/cuda_backend: $(B)/tests/cuda_backend.o $(B)/libhalftone.a
	$(call SAY,LD,$@)$(CC) $(LDFLAGS) $^ -lcmocka $(LDLIBS) -o $@

# Kernels against references of their own, on a machine with a GPU: PROGRAM MODULE [--bench].
$(B)/tests/cuda_%: $(B)/tests/cuda_%.o
	$(call SAY,LD,$@)$(CC) $(LDFLAGS) $^ -ldl -lm -o $@

gpu-test:
	@tools/deps.sh test
	@$(MAKE) $(AGAIN) all cuda $(B)/tests/cuda_backend
	$(B)/tests/cuda_product $(B)/libhalftone-cuda.so
	$(B)/tests/cuda_kernels $(B)/libhalftone-cuda.so
	LD_LIBRARY_PATH=$(B) $(B)/tests/cuda_backend

gpu-bench:
	@tools/deps.sh
	@$(MAKE) $(AGAIN) all cuda
	$(B)/tests/cuda_product $(B)/libhalftone-cuda.so --bench
	$(B)/tests/cuda_kernels $(B)/libhalftone-cuda.so --bench
	$(B)/halftone bench models/cifar10-w4a8 --backend cuda --batch 1,16,256

# The tests that count allocations or make them fail.
$(B)/tests/test_safetensors_files $(B)/tests/test_session: \
    TEST_LDFLAGS := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=aligned_alloc

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(call SAY,CC,$<)$(CC) $(CFLAGS) -c $< -o $@

$(B)/libhalftone.a: $(LIB_OBJ)
	@rm -f $@
	$(call SAY,AR,$@)ar rcs $@ $^

$(B)/halftone: $(CLI_OBJ) $(B)/libhalftone.a
	$(call SAY,LD,$@)$(CC) $(LDFLAGS) $^ $(MPI_LIBS) $(LDLIBS) -o $@

$(B)/libhalftone.so.$(VERSION): $(LIB_OBJ)
	$(call SAY,LD,$@)$(CC) -shared -Wl,-soname,libhalftone.so.0 $(LDFLAGS) $^ $(LDLIBS) -o $@

$(B)/tests/test_%: $(B)/tests/test_%.o $(B)/libhalftone.a
	$(call SAY,LD,$@)$(CC) $(LDFLAGS) $(TEST_LDFLAGS) $(filter %.o %.a,$^) -lcmocka $(LDLIBS) -o $@

$(B)/tests/fuzz_%: $(B)/tests/fuzz_%.o $(B)/libhalftone.a
	$(call SAY,LD,$@)$(CC) $(LDFLAGS) -fsanitize=fuzzer $^ $(LDLIBS) -o $@

# How fast single layers are in integers, and how far quantized models are from what they were made of.
benches: $(B)/bench/layers $(B)/bench/quality $(B)/bench/features
$(B)/bench/layers: $(B)/cli/peak.o
$(B)/bench/%: $(B)/bench/%.o $(B)/libhalftone.a
	$(call SAY,LD,$@)$(CC) $(LDFLAGS) $(filter %.o,$^) $(filter %.a,$^) $(LDLIBS) -o $@

tests: $(TESTS)
fuzzers: $(FUZZERS)

# ---- what people type ----------------------------------------------------------------------------------------------------
# Packages come first and may bring the compiler: so these call make again rather than depend on files.
AGAIN := --no-print-directory

# The text-to-image model that the demo draws with: quantized on first use.
EMOJI     := out/emoji-w4a8
EMOJI_HOW := --guidance 5 --steps 20 --sampler dpm++

demo:
	@tools/deps.sh
	@$(MAKE) $(AGAIN) all
	@mkdir -p out
	$(B)/halftone sample models/cifar10-w4a8 -n 64 --steps 50 -o out/cifar10-w4a8.png
	$(B)/halftone sample models/cifar10-w4a8 --beside models/cifar10 -n 16 --steps 50 -o out/beside.png
	[ -d $(EMOJI) ] || $(B)/halftone quantize models/emoji -o $(EMOJI)
	$(B)/halftone sample $(EMOJI) -p "a penguin" $(EMOJI_HOW) -o out/penguin.png
	$(B)/halftone sample $(EMOJI) --prompts models/emoji/prompts.txt $(EMOJI_HOW) -o out/emoji.png
	$(B)/halftone sample models/emoji-dit --class 1,10,27,42,50,69,73,77 -n 16 -o out/emoji-dit.png

test:
	@tools/deps.sh test
	@$(MAKE) $(AGAIN) all tests
	@$(MAKE) $(AGAIN) run-tests

run-tests:
	@tools/test.sh $(TESTS)

asan:
	@$(MAKE) $(AGAIN) VARIANT=asan test

# Valgrind runs one thread at a time: one processor, and waiting threads sleep.
valgrind: export OMP_WAIT_POLICY = PASSIVE
valgrind: export RUNNER = taskset -c 0 valgrind -q --vgdb=no --trace-children=yes \
    --trace-children-skip=*/mpirun --error-exitcode=99 --leak-check=full --show-leak-kinds=definite \
    --errors-for-leak-kinds=definite
valgrind:
	@tools/deps.sh valgrind
	@$(MAKE) $(AGAIN) test

fuzz:
	@tools/deps.sh fuzz
	@$(MAKE) $(AGAIN) VARIANT=fuzz CC=clang fuzzers
	@tools/fuzz.sh $(FUZZ_SECONDS) $(FUZZ_SRC:tests/%.c=build/fuzz/tests/%)

bench: all
	$(B)/halftone bench models/cifar10

C_FILES := $(foreach r,$(ROOMS) cli include tests bench,$(wildcard $(r)/*.c $(r)/*.h))

format:
	@tools/deps.sh lint
	clang-format -i $(C_FILES)

lint:
	@tools/deps.sh lint
	@tools/lint.sh $(LIB_SRC) $(CLI_SRC) $(TEST_SRC) $(FUZZ_SRC)

# ---- installing ----------------------------------------------------------------------------------------------------------
DEST := $(DESTDIR)$(PREFIX)

install: all $(B)/libhalftone.so.$(VERSION)
	install -d "$(DEST)/bin" "$(DEST)/include" "$(DEST)/lib/pkgconfig" "$(DEST)/share/man/man1" \
	    "$(DEST)/share/halftone/resnet18_w24" "$(DEST)/share/halftone/resnet18_w24_emoji"
	install -m 755 $(B)/halftone "$(DEST)/bin/"
	install -m 644 include/halftone.h "$(DEST)/include/"
	install -m 644 $(B)/libhalftone.a "$(DEST)/lib/"
	install -m 755 $(B)/libhalftone.so.$(VERSION) "$(DEST)/lib/"
	[ ! -f $(B)/libhalftone-cuda.so ] || install -m 755 $(B)/libhalftone-cuda.so "$(DEST)/lib/"
	ln -sf libhalftone.so.$(VERSION) "$(DEST)/lib/libhalftone.so.0"
	ln -sf libhalftone.so.0 "$(DEST)/lib/libhalftone.so"
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@LIBS@|$(LDLIBS)|' tools/halftone.pc.in > "$(DEST)/lib/pkgconfig/halftone.pc"
	install -m 644 docs/halftone.1 "$(DEST)/share/man/man1/"
	install -m 644 models/cifar10/features/* "$(DEST)/share/halftone/resnet18_w24/"
	install -m 644 models/emoji/features/* "$(DEST)/share/halftone/resnet18_w24_emoji/"

uninstall:
	rm -f "$(DEST)/bin/halftone" "$(DEST)/include/halftone.h" "$(DEST)/lib/libhalftone.a" "$(DEST)/lib/libhalftone.so"* "$(DEST)/lib/libhalftone-cuda.so" \
	    "$(DEST)/lib/pkgconfig/halftone.pc" "$(DEST)/share/man/man1/halftone.1"
	rm -rf "$(DEST)/share/halftone"

clean:
	rm -rf build out

.PHONY: cuda gpu-test gpu-bench all always benches tests fuzzers demo test run-tests asan valgrind fuzz bench format lint install uninstall clean
.SECONDARY:
-include $(shell find $(B) -name '*.d' 2>/dev/null)
