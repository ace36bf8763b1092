/* 8259: four initialization words each, then masks. */
#include "pic.h"
#include "io.h"

enum { START = 0x11, WITH_8086 = 0x01, CASCADE_LINE = 2, END_OF_INTERRUPT = 0x20 };

void pic_init(void)
{
    outb(START, PIC1_COMMAND);
    outb(START, PIC2_COMMAND);
    outb(PIC_VECTOR, PIC1_DATA);
    outb(PIC_VECTOR + 8, PIC2_DATA);
    outb(1 << CASCADE_LINE, PIC1_DATA);
    outb(CASCADE_LINE, PIC2_DATA);
    outb(WITH_8086, PIC1_DATA);
    outb(WITH_8086, PIC2_DATA);
    pic_mask_all();
}

void pic_mask_all(void)
{
    outb(0xff, PIC1_DATA);
    outb(0xff, PIC2_DATA);
}

void pic_unmask(unsigned irq)
{
    uint16_t port = irq < 8 ? PIC1_DATA : PIC2_DATA;

    outb(inb(port) & ~(1u << (irq & 7)), port);
    if (irq >= 8)
        pic_unmask(CASCADE_LINE);
}

void pic_end(unsigned irq)
{
    if (irq >= 8)
        outb(END_OF_INTERRUPT, PIC2_COMMAND);
    outb(END_OF_INTERRUPT, PIC1_COMMAND);
}
