/* What stands between Unicorn's library and us (translator.c). */
#ifndef RING1_TRANSLATOR_H
#define RING1_TRANSLATOR_H

#include "state.h"

bool guard_translator(void *library);
void aborts_belong_to(struct engine *e);
struct engine *running_engine(void);

#endif
