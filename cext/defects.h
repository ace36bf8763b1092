/* Shared by the two files on what TCG gets wrong. */
#ifndef DEFECTS_H
#define DEFECTS_H
#include "state.h"

bool has_defect(const struct engine *e, const uint8_t *code, size_t size, const uint8_t *opcode, int left);
bool do_defect(struct engine *e, const struct insn *i, bool *handled);
bool is_read_modify_write(const struct insn *i);
bool first_page_is_writable(struct engine *e, const struct insn *i, uint64_t linear);


/* The prefixes that the bytes of an instruction begin with. */
struct head { uint8_t rex, last; bool word; };     /* the last of F2 and F3; 66 */

void set_status(struct engine *e, uint64_t defined, uint64_t flags);
bool emms(struct engine *e, const struct insn *i);
bool own_horizontal(struct engine *e, const struct insn *i, bool wide, uint8_t op);
bool compare_ordered(struct engine *e, const struct insn *i, struct head h);
bool compare_strings(struct engine *e, const struct insn *i, bool wide, uint8_t opcode);
#endif
