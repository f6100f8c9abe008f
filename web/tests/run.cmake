# cmake -DWEB=web -DSCRIPT=test|e2e -DNPM=npm -DEMBEDDED=web_files_data.cpp [-DFATHOM=fathom -DNANO=models/nano -DCHROMIUM=chromium]
# -P run.cmake: runs a script of package.json. Where the program was built without the web app, and the libraries are not there
# therefore, it says so, in the words that ctest takes as skipped.
cmake_minimum_required(VERSION 3.25)

file(STRINGS ${EMBEDDED} has_app REGEX "has_web_app.*true")
if(NOT has_app)
  message("skipped: the program was built without the web app (FATHOM_WEB; cmake/web.cmake says why)")
  return()
endif()
if(DEFINED FATHOM)
  set(ENV{FATHOM} ${FATHOM})
  set(ENV{FATHOM_NANO} ${NANO})
  set(ENV{CHROMIUM} ${CHROMIUM})
endif()
execute_process(COMMAND ${NPM} run ${SCRIPT} WORKING_DIRECTORY ${WEB} RESULT_VARIABLE code)
if(NOT code EQUAL 0)
  message(FATAL_ERROR "the web app's tests failed: npm run ${SCRIPT}")
endif()
