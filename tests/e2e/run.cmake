# cmake -DE2E=tests/e2e -DFOLDER=build/e2e -DFATHOM=fathom -DNANO=models/nano -DNPM=npm -P run.cmake: installs the client
# libraries into the build folder and runs the tests there. Where the registry cannot be reached it says so, in the words that ctest takes as skipped.
cmake_minimum_required(VERSION 3.25)

# A failure to reach it, as npm names it; whatever else goes wrong with an installation fails the test.
set(unreachable "ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT|ERR_SOCKET_TIMEOUT")

file(GLOB sources ${E2E}/*.mjs ${E2E}/*.json ${E2E}/.npmrc)
file(MAKE_DIRECTORY ${FOLDER})
file(COPY ${sources} DESTINATION ${FOLDER})
set(ENV{FATHOM} ${FATHOM})
set(ENV{FATHOM_NANO} ${NANO})

# Installed for this very lock file: a stamp says so, as copies keep the times of their originals.
file(SHA256 ${FOLDER}/package-lock.json lock)
set(installed "")
if(EXISTS ${FOLDER}/installed)
  file(READ ${FOLDER}/installed installed)
endif()
if(NOT installed STREQUAL lock)
  execute_process(COMMAND ${NPM} ci --no-audit --no-fund --ignore-scripts --prefer-offline --fetch-retries=1
                          --fetch-timeout=30000
                  WORKING_DIRECTORY ${FOLDER} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT code EQUAL 0)
    if(output MATCHES "${unreachable}")
      message("skipped: npm cannot reach the registry for the client libraries\n${output}")
      return()
    endif()
    message(FATAL_ERROR "npm could not install the client libraries:\n${output}")
  endif()
  file(WRITE ${FOLDER}/installed ${lock})
endif()

execute_process(COMMAND ${NPM} test WORKING_DIRECTORY ${FOLDER} RESULT_VARIABLE code)
if(NOT code EQUAL 0)
  message(FATAL_ERROR "the clients' tests failed")
endif()
