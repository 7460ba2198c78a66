# bash completion for hostdev: what may stand where the cursor is says hostdev itself.
_hostdev() {
  local line=${COMP_LINE:0:COMP_POINT} cur candidate text prefix
  local -a words
  read -ra words <<< "$line"
  [[ $line == *[[:space:]] ]] && words+=('')
  cur=${words[-1]}
  # bash completes only what is behind the last of these, and an address has colons in it.
  prefix=
  [[ $COMP_WORDBREAKS == *:* && $cur == *:* ]] && prefix=${cur%"${cur##*:}"}
  [[ $COMP_WORDBREAKS == *=* && ${cur#"$prefix"} == *=* ]] && prefix=${cur%"${cur##*=}"}
  COMPREPLY=()
  while IFS=$'\t' read -r candidate text; do
    case $candidate in
      :files | :folders)
        compopt -o filenames 2> /dev/null
        local action=-f path
        [[ $candidate == :folders ]] && action=-d
        while read -r path; do COMPREPLY+=("$path"); done < <(compgen $action -- "${cur#"$prefix"}")
        ;;
      ?*) COMPREPLY+=("${candidate#"$prefix"}") ;;
    esac
  done < <("${words[0]}" completion words -- "${words[@]:1}" 2> /dev/null)
}
complete -F _hostdev hostdev
