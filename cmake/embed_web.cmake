# cmake -DWEB=web -DOUT=file.cpp -DBUILD=TRUE|FALSE -DMODE=ON|AUTO|OFF -DNPM=npm -P embed_web.cmake: builds the app and writes a
# C++ file that holds what was built (src/serve/web_files.h). BUILD=FALSE: the page that says that it is missing.
cmake_minimum_required(VERSION 3.25)

# npm(RESULT ARGUMENT...)
function(npm result)
  execute_process(COMMAND ${NPM} ${ARGN} WORKING_DIRECTORY ${WEB} RESULT_VARIABLE code OUTPUT_VARIABLE output
                  ERROR_VARIABLE output)
  if(NOT code EQUAL 0)
    message("${output}")
  endif()
  set(${result} ${code} PARENT_SCOPE)
endfunction()

if(BUILD)
  if(${WEB}/package-lock.json IS_NEWER_THAN ${WEB}/node_modules/.package-lock.json)
    # A network that swallows packets costs a minute, not the quarter of an hour of npm's own settings.
    npm(code ci --no-audit --no-fund --prefer-offline --fetch-retries=1 --fetch-timeout=30000)
    if(NOT code EQUAL 0 AND MODE STREQUAL "AUTO")
      message(WARNING "npm could not fetch the libraries of the web app (its message is above): this build is without it. "
                      "Remove ${OUT} to try again, or build with -DFATHOM_WEB=OFF.")
      set(BUILD FALSE)
    elseif(NOT code EQUAL 0)
      message(FATAL_ERROR "npm could not fetch the libraries of the web app; its message is above.")
    endif()
  endif()
endif()
if(BUILD)
  npm(code run build)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "the web app does not build; the message is above.")
  endif()
  set(folder ${WEB}/dist)
  set(page index.html)
  file(GLOB_RECURSE files RELATIVE ${folder} ${folder}/*)
else()
  set(folder ${WEB})
  set(page without_app.html)
  set(files ${page})
endif()
list(FILTER files EXCLUDE REGEX "\\.(gz|br)$")
# Ordered by path, as find_web_file searches: the page itself is "/", before all others.
list(REMOVE_ITEM files ${page})
list(SORT files)
list(PREPEND files ${page})

set(types
  html "text/html\\; charset=utf-8" js "text/javascript\\; charset=utf-8" css "text/css\\; charset=utf-8"
  svg image/svg+xml png image/png webmanifest application/manifest+json woff2 font/woff2)

set(blobs "")
set(table "")
set(count 0)
# blob(VARIABLE FILE): the file's bytes, as an expression.
macro(blob variable file)
  if(EXISTS ${file})
    file(SIZE ${file} size)
    string(APPEND blobs "FATHOM_WEB_BLOB(${count}, \"${file}\")\n")
    set(${variable} "std::string_view(fathom_web_${count}, ${size})")
    math(EXPR count "${count} + 1")
  else()
    set(${variable} "{}")
  endif()
endmacro()

foreach(name IN LISTS files)
  set(file ${folder}/${name})
  set(path "/${name}")
  if(name STREQUAL page)
    set(path "/")
  endif()
  string(REGEX REPLACE "^.*\\." "" extension "${file}")
  list(FIND types "${extension}" at)
  if(at EQUAL -1)
    message(FATAL_ERROR "${file}: no content type is known for .${extension}; add it to cmake/embed_web.cmake")
  endif()
  math(EXPR at "${at} + 1")
  list(GET types ${at} type)
  file(SHA256 ${file} hash)
  string(SUBSTRING ${hash} 0 20 hash)
  # What has its hash in its name never changes; everything else is asked for again.
  set(cache "no-cache")
  if(name MATCHES "^assets/")
    set(cache "public, max-age=31536000, immutable")
  endif()
  blob(bytes ${file})
  blob(gzip ${file}.gz)
  blob(brotli ${file}.br)
  string(APPEND table
    "    {\"${path}\", ${bytes}, ${gzip}, ${brotli}, \"${type}\", \"\\\"${hash}\\\"\", \"${cache}\"},\n")
endforeach()

set(symbols "")
math(EXPR last "${count} - 1")
foreach(i RANGE ${last})
  string(APPEND symbols "extern const char fathom_web_${i}[];\n")
endforeach()
if(BUILD)
  set(has_app true)
else()
  set(has_app false)
endif()

set(text "// Written by cmake/embed_web.cmake.
#include \"serve/web_files.h\"

// The assembler takes the files in as they are; as arrays of numbers they would take the compiler minutes.
#define FATHOM_WEB_BLOB(number, file)                                                                       \\
  asm(\".pushsection .rodata\\n.balign 16\\n.global fathom_web_\" #number \"\\nfathom_web_\" #number \":\\n.incbin \\\"\" file \\
      \"\\\"\\n.byte 0\\n.popsection\\n\");
${blobs}
extern \"C\" {
${symbols}}

namespace fathom {

namespace {
const WebFile kFiles[] = {
${table}};
}  // namespace

std::span<const WebFile> web_files() { return kFiles; }
bool has_web_app() { return ${has_app}; }

}  // namespace fathom
")
file(WRITE ${OUT} "${text}")
