# fathom_web_files(TARGET): the web app of web/, built with npm and embedded in TARGET (src/serve/web_files.h). Without it, a
# page that says so is embedded instead.
set(FATHOM_WEB "AUTO" CACHE STRING "Embed the web app: ON, OFF, or AUTO (where node and npm are installed)")
set_property(CACHE FATHOM_WEB PROPERTY STRINGS ON OFF AUTO)

function(fathom_web_files target)
  set(build FALSE)
  if(NOT FATHOM_WEB STREQUAL "OFF")
    find_program(FATHOM_NODE node)
    find_program(FATHOM_NPM npm)
    set(reason "")
    if(NOT FATHOM_NODE OR NOT FATHOM_NPM)
      set(reason "node and npm were not found (Debian: apt-get install nodejs npm)")
    else()
      execute_process(COMMAND ${FATHOM_NODE} --version OUTPUT_VARIABLE version OUTPUT_STRIP_TRAILING_WHITESPACE)
      string(REGEX REPLACE "^v" "" version "${version}")
      if(version VERSION_LESS 18)
        set(reason "node is ${version}, 18 or later is needed")
      endif()
    endif()
    if(NOT reason)
      set(build TRUE)
    elseif(FATHOM_WEB STREQUAL "AUTO")
      message(STATUS "Without the web app: ${reason}")
    else()
      message(FATAL_ERROR "FATHOM_WEB=${FATHOM_WEB}: ${reason}")
    endif()
  endif()

  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/web/src/* ${CMAKE_SOURCE_DIR}/web/public/*
       ${CMAKE_SOURCE_DIR}/web/scripts/*)
  file(GLOB top CONFIGURE_DEPENDS LIST_DIRECTORIES FALSE ${CMAKE_SOURCE_DIR}/web/*.json ${CMAKE_SOURCE_DIR}/web/*.html
       ${CMAKE_SOURCE_DIR}/web/*.ts)
  set(generated ${CMAKE_BINARY_DIR}/web/web_files_data.cpp)
  add_custom_command(OUTPUT ${generated}
    COMMAND ${CMAKE_COMMAND} -DWEB=${CMAKE_SOURCE_DIR}/web -DOUT=${generated} -DBUILD=${build} -DMODE=${FATHOM_WEB}
            -DNPM=${FATHOM_NPM} -P ${CMAKE_SOURCE_DIR}/cmake/embed_web.cmake
    DEPENDS ${sources} ${top} ${CMAKE_SOURCE_DIR}/cmake/embed_web.cmake
    COMMENT "Building the web app"
    VERBATIM)
  target_sources(${target} PRIVATE ${generated})
endfunction()
