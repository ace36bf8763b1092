/* Included by the generated cffi glue. */
#include <stdint.h>
#include "native.cdef.h"
#include "port.cdef.h"
#include "xen.cdef.h"
