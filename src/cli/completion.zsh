#compdef hostdev
# zsh completion for hostdev: what may stand where the cursor is says hostdev itself.
_hostdev() {
  local line candidate text
  local -a candidates texts
  local paths=
  for line in "${(@f)$("${words[1]}" completion words -- "${(@)words[2,CURRENT]}" 2> /dev/null)}"; do
    candidate=${line%%$'\t'*}
    text=${line#*$'\t'}
    case $candidate in
      :files | :folders) paths=${candidate#:} ;;
      ?*)
        candidates+=("$candidate")
        [[ -n $text ]] && texts+=("$candidate  $text") || texts+=("$candidate")
        ;;
    esac
  done
  (( $#candidates )) && compadd -l -d texts -- "${candidates[@]}"
  [[ $paths == files ]] && _files
  [[ $paths == folders ]] && _files -/
  return 0
}
if [[ $funcstack[1] == _hostdev ]]; then
  _hostdev "$@"
else
  compdef _hostdev hostdev
fi
