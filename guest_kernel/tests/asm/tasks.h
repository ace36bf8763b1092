/* Shared by tasks.c and tasks32.S: selectors, what to do, and the order of what a task notes. */
#define TASK_MAIN 0x50
#define TASK_OTHER 0x58
#define TASK_16 0x60
#define TASK_GATE 0x68
#define TASK_CODE16 0x70
#define TASK_LDT 0x78
#define TASK_VECTOR 0x73

#define BY_CALL 1
#define BY_JMP 2
#define BY_GATE 3
#define BY_INT 4
#define BY_FAULT 5
#define BY_CALL16 6
#define BY_IRET 7

#define BACK_BY_IRET 0
#define BACK_BY_JMP 1
#define BACK_AFTER_FAULT 2

#define SEEN_EAX 0
#define SEEN_ESP 1
#define SEEN_EBP 2
#define SEEN_EDI 3
#define SEEN_TOP 4
#define SEEN_EFLAGS 5
#define SEEN_TR 6
#define SEEN_LDT 7
#define SEEN_CR0 8
#define SEEN_CR3 9
#define SEEN_FS 10
#define SEEN_DR7 11
#define SEEN_GS_DATA 12
#define SEEN_SAVED_EFLAGS 13
#define SEEN_SAVED_EIP 14
#define SEEN_WORDS 15
