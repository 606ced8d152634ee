# Halftone.  `make demo` draws, `make test` tests; both install what is missing first (tools/deps.sh).
CC       ?= gcc
VARIANT  ?= release
B        := build/$(VARIANT)
PREFIX   ?= /usr/local

WARN     := -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
FLAGS_release := -O3 -g
FLAGS_asan    := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
# No contraction and no -ffast-math anywhere: where a multiply and an add are one operation, the source says so.
CFLAGS   := $(WARN) $(FLAGS_$(VARIANT)) -ffp-contract=off -fopenmp -fPIC -MMD -MP -I. -Iinclude $(EXTRA_CFLAGS)
LDFLAGS  := $(filter -fsanitize%,$(FLAGS_$(VARIANT))) -fopenmp
LDLIBS   := -ljansson -lz -lm

ROOMS    := core graph cpu unet sampler
LIB_SRC  := $(foreach r,$(ROOMS),$(wildcard $(r)/*.c))
CLI_SRC  := $(wildcard cli/*.c)
TEST_SRC := $(wildcard tests/test_*.c)
LIB_OBJ  := $(LIB_SRC:%.c=$(B)/%.o)
CLI_OBJ  := $(CLI_SRC:%.c=$(B)/%.o)
TESTS    := $(TEST_SRC:tests/%.c=$(B)/tests/%)

all: $(B)/libhalftone.a $(B)/halftone

# Instruction sets are picked at run time: each file of one gets its own flags.
$(B)/cpu/avx2%.o:   CFLAGS += -mavx2 -mfma -mf16c
$(B)/cpu/avx512%.o: CFLAGS += -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -mprefer-vector-width=512

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -c $< -o $@

$(B)/libhalftone.a: $(LIB_OBJ)
	@rm -f $@
	ar rcs $@ $^

$(B)/halftone: $(CLI_OBJ) $(B)/libhalftone.a
	$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@

$(B)/tests/%: $(B)/tests/%.o $(B)/libhalftone.a
	$(CC) $(LDFLAGS) $^ -lcmocka $(LDLIBS) -o $@

tests: $(TESTS)

clean:
	rm -rf build out

.PHONY: all tests clean
.SECONDARY:
-include $(shell find build/$(VARIANT) -name '*.d' 2>/dev/null)
