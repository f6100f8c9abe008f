# Flags that every target of the project is compiled with.
add_library(fathom_warnings INTERFACE)
target_compile_options(fathom_warnings INTERFACE
  -Wall -Wextra -Wconversion -Wshadow
  # Results must not depend on which multiplications the compiler chooses to fuse (docs/numerics.md).
  -ffp-contract=off
  $<$<BOOL:${FATHOM_WERROR}>:-Werror>)
if(FATHOM_TOGETHER)  # where one file's names stand in front of the next one's
  target_compile_options(fathom_warnings INTERFACE -Wno-shadow $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
endif()
if(FATHOM_SANITIZE)
  add_compile_options(-fsanitize=${FATHOM_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${FATHOM_SANITIZE})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")  # 14 emits no coroutines with it: "Cannot represent a difference across sections"
    add_compile_options(-fno-sanitize=function)
  endif()
endif()
if(FATHOM_FUZZ)
  # Coverage everywhere; libFuzzer's main only in the fuzz targets themselves.
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()
