/* Descriptors, far transfers and events against the manual's pseudo-code. Prints one line for each difference.
 *
 *   deliver_check LIBUNICORN LIBCAPSTONE
 */
#include "deliver_machine.h"

#include <sys/mman.h>

int main(int argc, char **argv)
{
    if (argc != 3 || bind_libraries(argv[1], argv[2])) {
        fprintf(stderr, "usage: deliver_check LIBUNICORN LIBCAPSTONE: %s\n", binding_error());
        return 2;
    }
    ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    engine = engine_create(ram, RAM_BYTES);
    check_loads();
    check_far_transfers();
    check_returns();
    check_events();
    printf("%d checks, %d differences\n", checks, failures);
    engine_destroy(engine);
    return failures != 0;
}
