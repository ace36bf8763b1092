/* The pair of 8259 interrupt controllers of a PC. */
#ifndef LIB_PIC_H
#define LIB_PIC_H
#include <stdint.h>

enum { PIC_VECTOR = 0x20 };
enum { PIC1_COMMAND = 0x20, PIC1_DATA = 0x21, PIC2_COMMAND = 0xa0, PIC2_DATA = 0xa1 };

void pic_init(void);                     /* IRQ 0 to 15 at vectors 0x20 to 0x2f, all masked */
void pic_unmask(unsigned irq);
void pic_mask_all(void);
void pic_end(unsigned irq);
#endif
