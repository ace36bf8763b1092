/* Shared by the two files on what TCG gets wrong. */
#ifndef DEFECTS_H
#define DEFECTS_H
#include "state.h"

enum { FLAG_CF = 1, FLAG_PF = 1 << 2, FLAG_AF = 1 << 4, FLAG_ZF = 1 << 6, FLAG_SF = 1 << 7, FLAG_OF = 1 << 11,
       STATUS = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF };

/* The prefixes that the bytes of an instruction begin with. */
struct head { uint8_t rex, last; bool word; };     /* the last of F2 and F3; 66 */

void set_status(struct engine *e, uint64_t defined, uint64_t flags);
bool emms(struct engine *e, const struct insn *i);
bool own_horizontal(struct engine *e, const struct insn *i, bool wide, uint8_t op);
bool compare_ordered(struct engine *e, const struct insn *i, struct head h);
bool compare_strings(struct engine *e, const struct insn *i, bool wide, bool masks);
#endif
