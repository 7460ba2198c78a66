# fish completion for hostdev: what may stand where the cursor is says hostdev itself.
function __hostdev_complete
    set -l line (commandline -opc)
    for found in ($line[1] completion words -- $line[2..-1] (commandline -ct) 2>/dev/null)
        switch $found
            case :files
                __fish_complete_path (commandline -ct)
            case :folders
                __fish_complete_directories (commandline -ct) ''
            case '*'
                echo $found
        end
    end
end
complete -c hostdev -f -a '(__hostdev_complete)'
