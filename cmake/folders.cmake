# fathom_folder(NAME USES lib... PRECOMPILE header...): the static library fathom_NAME from src/NAME/*.cpp.
# Kernel files named *_amx.cpp, *_avx512.cpp and *_avx2.cpp are compiled for that instruction set (x86-64 only); nothing else is.
# These and *_portable.cpp are the loops over numbers. Sanitizers keep compilers from vectorising them, so they
# are left out unless FATHOM_SANITIZE_KERNELS asks for them (docs/testing.md).
set(FATHOM_AVX512_FLAGS -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vbmi -mavx512vbmi2 -mavx512bf16 -mgfni -mbmi -mfma -mf16c)
# GCC 12 reports its own intrinsics headers as using uninitialised values (GCC bug 105593).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  list(APPEND FATHOM_AVX512_FLAGS -Wno-maybe-uninitialized -Wno-uninitialized)
endif()
set(FATHOM_AMX_FLAGS ${FATHOM_AVX512_FLAGS} -mamx-tile -mamx-bf16)
set(FATHOM_AVX2_FLAGS -mavx2 -mfma)

# FATHOM_TOGETHER compiles the files of a folder eight at a time, and these headers once: most of the compiler's time goes into
# what headers define, which every file that uses it compiles anew. `./fathom test` from nothing compiles in 14 minutes on two
# cores of a Zen 3, in 27 without. What it asks of a folder's files: a name in an unnamed namespace is not that of another file's,
# nor of anything that another file includes, which it would hide.
if(FATHOM_TOGETHER)
  set(CMAKE_UNITY_BUILD ON)
  set(CMAKE_UNITY_BUILD_BATCH_SIZE 8)
endif()
set(FATHOM_LARGE_HEADERS <nlohmann/json.hpp> <fmt/format.h> <tl/expected.hpp> <algorithm> <chrono> <filesystem> <functional>
    <map> <memory> <mutex> <optional> <span> <string> <thread> <vector>)

function(fathom_folder name)
  cmake_parse_arguments(arg "" "" "USES;PRECOMPILE" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.cpp)
  foreach(source ${sources})
    set(flags "")
    if(source MATCHES "_avx512\\.cpp$")
      set(flags ${FATHOM_AVX512_FLAGS})
    elseif(source MATCHES "_amx\\.cpp$")
      set(flags ${FATHOM_AMX_FLAGS})
    elseif(source MATCHES "_avx2\\.cpp$")
      set(flags ${FATHOM_AVX2_FLAGS})
    elseif(NOT source MATCHES "_portable\\.cpp$")
      continue()
    endif()
    if(FATHOM_SANITIZE AND NOT FATHOM_SANITIZE_KERNELS)
      list(APPEND flags -fno-sanitize=all -O3)
    endif()
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${flags}" SKIP_PRECOMPILE_HEADERS ON)
  endforeach()
  add_library(fathom_${name} STATIC ${sources})
  target_include_directories(fathom_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(fathom_${name} PUBLIC ${arg_USES} PRIVATE fathom_warnings)
  if(arg_PRECOMPILE)
    target_precompile_headers(fathom_${name} PRIVATE ${arg_PRECOMPILE})
  elseif(FATHOM_TOGETHER AND name STREQUAL "base")
    target_precompile_headers(fathom_base PRIVATE ${FATHOM_LARGE_HEADERS})
  elseif(FATHOM_TOGETHER)
    target_precompile_headers(fathom_${name} REUSE_FROM fathom_base)
  endif()
endfunction()

# The build refuses an upward include: every library waits for the check.
function(fathom_check_layers)
  file(GLOB_RECURSE all CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/*.h ${CMAKE_SOURCE_DIR}/src/*.cpp)
  set(stamp ${CMAKE_BINARY_DIR}/layers.stamp)
  add_custom_command(OUTPUT ${stamp}
    COMMAND ${CMAKE_COMMAND} -DSRC=${CMAKE_SOURCE_DIR}/src -P ${CMAKE_SOURCE_DIR}/cmake/check_layers.cmake
    COMMAND ${CMAKE_COMMAND} -E touch ${stamp}
    DEPENDS ${all} ${CMAKE_SOURCE_DIR}/cmake/check_layers.cmake
    COMMENT "Checking the direction of includes")
  add_custom_target(check_layers DEPENDS ${stamp})
  foreach(name base net tensor checkpoint text ops grammar tasks cpu model engine train eval api load serve)
    if(TARGET fathom_${name})
      add_dependencies(fathom_${name} check_layers)
    endif()
  endforeach()
endfunction()
