
/* ---- port I/O that is carried out here (cext/portwork.c) ---- */

/* Byte IN and OUT, known by the qualification of their exits (NO_PORT: none). `value`: what IN reads; `text`: the `said` bytes
 * of OUT that software has not heard yet. */
enum { SAID_BYTES = 1024 };
#define NO_PORT 0xffffffffffffffff
struct port_work { uint64_t reads, writes; uint32_t said; uint8_t value, text[SAID_BYTES]; };
struct port_work *engine_port_work(struct engine *engine);
/* engine_enter() behind the instruction that exited (vcpu_skip_exit()), until there is an exit for software. Its code comes
 * with CODE_SAID when there is something to hear before. */
#define CODE_SAID 0x100000000
uint64_t engine_skip_and_enter(struct engine *engine, struct vcpu *vcpu, uint64_t until, struct exit_record *record);
